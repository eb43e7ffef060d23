package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// configFile is a YAML or JSON file that takes the place of all other flags.
// Its keys are names of flags; those of TLS and of sockets are in blocks.
//
//	name: m1
//	listen-client-urls: https://127.0.0.1:2379
//	watch-progress-notify-interval: 600000000000   # nanoseconds
//	client-transport-security:
//	  cert-file: m1.pem
type configFile struct {
	flags *flag.FlagSet // over config
	to    *Config
	warn  []string
}

// configPath is the file that a flag or a variable names; "" is none.
func configPath(fs *flag.FlagSet, environ []string) (string, error) {
	const variable = "ETCD_CONFIG_FILE="
	path := fs.Lookup("config-file").Value.String()
	for _, kv := range environ {
		value, ok := strings.CutPrefix(kv, variable)
		if !ok || value == "" {
			continue
		}
		if path != "" {
			return "", shadowed("ETCD_CONFIG_FILE", "config-file")
		}
		path = value
	}
	return path, nil
}

// readFile makes the configuration from the file alone, and warns of what it
// puts out of force.
func (r *FlagResult) readFile(path string, given *flag.FlagSet, environ []string) error {
	var ignored []string
	given.Visit(func(f *flag.Flag) {
		if f.Name != "config-file" {
			ignored = append(ignored, "--"+f.Name)
		}
	})
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(key, "ETCD_") && value != "" && key != "ETCD_CONFIG_FILE" && !isSwitch(key) {
			ignored = append(ignored, key)
		}
	}
	if len(ignored) > 0 {
		r.Warn = append(r.Warn, "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided: "+strings.Join(ignored, ", "))
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("--config-file: %w", err)
	}
	r.Config = DefaultConfig()
	c := configFile{flags: flag.NewFlagSet("", flag.ContinueOnError), to: &r.Config}
	defineFlags(c.flags, c.to)
	defineOtherFlags(c.flags, &r.Warn)
	if err := c.read(text); err != nil {
		return fmt.Errorf("--config-file %s: %w", path, err)
	}
	r.Warn = append(r.Warn, c.warn...)
	r.warnLimits()
	r.warnFeatures()
	return r.Config.complete(c.flags)
}

func (c *configFile) read(text []byte) error {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(asJSON))
	decoder.UseNumber()
	var keys map[string]any
	if err := decoder.Decode(&keys); err != nil {
		return fmt.Errorf("error unmarshaling JSON: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if err := c.set(key, keys[key]); err != nil {
			return err
		}
	}
	return nil
}

// set takes one key of the file's top level.
func (c *configFile) set(key string, value any) error {
	switch key {
	case "client-transport-security":
		return c.setBlock(key, value, func(name string) string { return tlsFlagName("", "client-cert-", name) })
	case "peer-transport-security":
		return c.setBlock(key, value, func(name string) string { return tlsFlagName("peer-", "peer-cert-", name) })
	case "socket-options":
		return c.setBlock(key, value, func(name string) string { return "socket-" + name })
	case "discovery-config":
		return c.setBlock(key, value, func(name string) string { return "discovery-" + name })
	case "config-file":
		return fmt.Errorf("a configuration file cannot name another one")
	}
	if c.flags.Lookup(key) == nil || isTLSKey(key) {
		c.unknown(key)
		return nil
	}
	return c.setFlag(key, key, value)
}

func (c *configFile) setBlock(block string, value any, flagName func(string) string) error {
	if value == nil {
		return nil
	}
	keys, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("error unmarshaling JSON: json: cannot unmarshal %s into Go struct field %s of type struct", kindOf(value), block)
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		path := block + "." + name
		if done, err := c.setHidden(path, keys[name]); done || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		to := flagName(name)
		if c.flags.Lookup(to) == nil {
			c.unknown(path)
			continue
		}
		if err := c.setFlag(path, to, keys[name]); err != nil {
			return err
		}
	}
	return nil
}

// setHidden takes the keys that no flag has.
func (c *configFile) setHidden(path string, value any) (done bool, err error) {
	extra := flag.NewFlagSet("", flag.ContinueOnError)
	extra.Func("client-transport-security.allowed-cn", "", listValue(&c.to.ClientTLS.AllowedCNs))
	extra.BoolVar(&c.to.ClientTLS.SkipClientSAN, "client-transport-security.skip-client-san-verification", false, "")
	f := extra.Lookup(path)
	if f == nil || value == nil {
		return f != nil, nil
	}
	return true, setText(f, path, value)
}

func (c *configFile) setFlag(path, name string, value any) error {
	if value == nil {
		return nil
	}
	f := c.flags.Lookup(name)
	text, err := textOf(f, path, value)
	if err != nil {
		return err
	}
	if err := c.flags.Set(name, text); err != nil {
		return fmt.Errorf("invalid value %q for %s: %w", text, path, err)
	}
	return nil
}

func setText(f *flag.Flag, path string, value any) error {
	text, err := textOf(f, path, value)
	if err != nil {
		return err
	}
	return f.Value.Set(text)
}

func (c *configFile) unknown(path string) {
	c.warn = append(c.warn, "unrecognized key in the configuration file: "+path)
}

// tlsFlagName is the flag of a key in a TLS block.
func tlsFlagName(prefix, allowedPrefix, key string) string {
	if strings.HasPrefix(key, "allowed-") {
		return allowedPrefix + key
	}
	if prefix == "" && key == "crl-file" {
		return "client-crl-file"
	}
	return prefix + key
}

// isTLSKey tells of flags that the file has in a block, and only there.
func isTLSKey(name string) bool {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	tlsFlags(fs, &Config{})
	switch name {
	case "self-signed-cert-validity", "cipher-suites", "tls-min-version", "tls-max-version":
		return false
	}
	return fs.Lookup(name) != nil
}

// textOf writes a value of the file as its flag reads it. Durations are whole
// nanoseconds there: text is refused, as etcd does.
func textOf(f *flag.Flag, path string, value any) (string, error) {
	wrong := func(kind string) (string, error) {
		return "", fmt.Errorf("error unmarshaling JSON: json: cannot unmarshal %s into Go struct field %s of type %s", kindOf(value), path, kind)
	}
	var current any
	if g, ok := f.Value.(flag.Getter); ok {
		current = g.Get()
	}
	switch current.(type) {
	case time.Duration:
		n, ok := value.(json.Number)
		if !ok {
			return wrong("time.Duration")
		}
		nanos, err := n.Int64()
		if err != nil {
			return wrong("time.Duration")
		}
		return time.Duration(nanos).String(), nil
	case bool:
		if _, ok := value.(bool); !ok {
			return wrong("bool")
		}
	case int, int64, uint, uint64, float64:
		if _, ok := value.(json.Number); !ok {
			return wrong(fmt.Sprintf("%T", current))
		}
	}
	switch v := value.(type) {
	case map[string]any:
		return wrong("string")
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = fmt.Sprint(v[i])
		}
		return strings.Join(parts, ","), nil
	}
	return fmt.Sprint(value), nil
}

func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "string"
	case bool:
		return "bool"
	case json.Number:
		return "number"
	case []any:
		return "array"
	}
	return "object"
}
