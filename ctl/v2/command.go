package v2

import (
	"errors"
	"flag"
	"io"
	"strings"
)

// command is one command, or a group of them.
type command struct {
	name    string
	parent  string // the group that it is in, with a space behind; "" = none
	args    string // what follows the flags, for people
	short   string
	long    string
	example string // after the name of the tool
	group   string // "" below another command
	flags   func(*flag.FlagSet)
	run     func(t *tool, args []string) error
	sub     []*command
}

func (c *command) flagSet() *flag.FlagSet {
	f := flag.NewFlagSet(c.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	if c.flags != nil {
		c.flags(f)
	}
	return f
}

// parse sets the flags of the command and returns what is not a flag. Flags may
// stand after arguments, as in `set /a b --ttl 5`.
func (c *command) parse(args []string) (rest []string, help bool, err error) {
	f := c.flagSet()
	err = f.Parse(flagsFirst(f, args))
	if errors.Is(err, flag.ErrHelp) {
		return nil, true, nil
	}
	return f.Args(), false, err
}

// flagsFirst moves the flags that the command knows before its other arguments,
// up to a double dash. What follows a flag without a dash may be its value and
// moves with it, also behind a switch that takes none: a script for etcdctl 3.4
// relies on the order that comes of it.
func flagsFirst(f *flag.FlagSet, args []string) []string {
	var first, rest []string
	valueNext := false
	for i, arg := range args {
		name, isFlag := strings.CutPrefix(arg, "-")
		switch {
		case arg == "--":
			return append(append(append(first, "--"), rest...), args[i+1:]...)
		case valueNext && !isFlag:
			first, valueNext = append(first, arg), false
		case isFlag && f.Lookup(flagName(name)) != nil:
			first, valueNext = append(first, arg), !strings.Contains(arg, "=")
		default:
			rest = append(rest, arg)
		}
	}
	return append(first, rest...)
}

func flagName(arg string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
	return name
}

// boolFlag is a switch with a short name beside its long one.
func boolFlag(f *flag.FlagSet, p *bool, long, short, usage string) {
	f.BoolVar(p, long, false, usage)
	if short != "" {
		f.BoolVar(p, short, false, alias+long)
	}
}

// alias begins the usage of a flag that is another name of one.
const alias = "\x00"
