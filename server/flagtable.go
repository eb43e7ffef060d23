package server

import (
	"flag"
	"fmt"
	"strconv"
	"time"
)

// otherFlag is a flag of etcd that changes nothing in this version.
type otherFlag struct {
	name, normal string // the value that changes nothing
	isBool       bool
	meaningless  string // why any value is taken, with a warning; "" refuses all but the normal one
	allowed      func(string) error
}

// otherFlags are accepted with their normal value. Another value is refused
// where it asks for something that this version cannot do, and taken with a
// warning where it has no meaning here.
func otherFlags() []otherFlag {
	return []otherFlag{
		{name: "logger", normal: "zap"},
		{name: "backend-bbolt-freelist-type", normal: "map", meaningless: "the free list is always a map", allowed: oneOf("map", "array")},
		{name: "v2-deprecation", normal: "write-only", meaningless: "there is no v2 store", allowed: notNotYet},
	}
}

func oneOf(values ...string) func(string) error {
	return func(s string) error { return choiceValue{new(string), values}.Set(s) }
}

func notNotYet(s string) error {
	if s == "not-yet" {
		return fmt.Errorf("v2 store can no longer be kept; must be write-only, write-only-drop-data or gone")
	}
	return nil
}

// instead says which value is taken.
func (f otherFlag) instead() string {
	if f.normal == "" {
		return "leave it unset"
	}
	return "only " + f.normal + " is"
}

// otherValue takes what is given for an otherFlag.
type otherValue struct {
	f    otherFlag
	warn *[]string
}

func (v otherValue) String() string { return v.f.normal }

func (v otherValue) IsBoolFlag() bool { return v.f.isBool }

func (v otherValue) Set(s string) error {
	if v.f.allowed != nil {
		if err := v.f.allowed(s); err != nil {
			return err
		}
	}
	var err error
	switch v.Get().(type) {
	case bool:
		_, err = strconv.ParseBool(s)
	case time.Duration:
		_, err = time.ParseDuration(s)
	}
	switch {
	case err != nil:
		return err
	case s == v.f.normal || sameValue(s, v.f.normal):
		return nil
	case v.f.meaningless == "":
		return fmt.Errorf("--%s=%s is not supported by this version; %s", v.f.name, s, v.f.instead())
	}
	*v.warn = append(*v.warn, fmt.Sprintf("--%s=%s has no effect: %s", v.f.name, s, v.f.meaningless))
	return nil
}

// sameValue tells whether two texts are the same number, bool or duration.
func sameValue(a, b string) bool {
	for _, parse := range []func(string) (string, error){normalBool, normalDuration, normalFloat} {
		x, errX := parse(a)
		y, errY := parse(b)
		if errX == nil && errY == nil {
			return x == y
		}
	}
	return false
}

func normalBool(s string) (string, error) {
	v, err := strconv.ParseBool(s)
	return fmt.Sprint(v), err
}

func normalDuration(s string) (string, error) {
	v, err := time.ParseDuration(s)
	return v.String(), err
}

func normalFloat(s string) (string, error) {
	v, err := strconv.ParseFloat(s, 64)
	return fmt.Sprint(v), err
}

// Get gives a value of the type that the flag has in a configuration file.
func (v otherValue) Get() any {
	if v.f.isBool {
		return false
	}
	if _, err := time.ParseDuration(v.f.normal); err == nil && v.f.normal != "0" {
		return time.Duration(0)
	}
	return ""
}

func defineOtherFlags(fs *flag.FlagSet, warn *[]string) {
	for _, f := range otherFlags() {
		help := "not supported by this version: " + f.instead()
		if f.meaningless != "" {
			help = "no effect: " + f.meaningless
		}
		fs.Var(otherValue{f, warn}, f.name, help)
	}
}
