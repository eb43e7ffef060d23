package server

import (
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"github.com/kvorum/kvorum/server/logs"
)

// The levels of etcd at which this server never logs.
const (
	logPanic = "panic"
	logFatal = "fatal"
)

// logRotationDefault sets a file aside at 100 MB and keeps all.
const logRotationDefault = `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`

func logFlags(fs *flag.FlagSet, c *Config) {
	fs.Var(choiceValue{&c.LogLevel, []string{"debug", "info", "warn", "error", logPanic, logFatal}}, "log-level", "least level to log: debug, info, warn, error, panic, fatal")
	fs.Var(choiceValue{&c.LogFormat, []string{LogJSON, LogConsole}}, "log-format", "json, or console for reading by people")
	fs.Func("log-outputs", "default (the journal under systemd, stderr elsewhere), or by commas: stderr, stdout, systemd/journal, file names", func(s string) error {
		c.LogOutputs = strings.Split(s, ",")
		return nil
	})
	fs.BoolVar(&c.RotateLogs, "enable-log-rotation", false, "rotate the one file of --log-outputs")
	fs.StringVar(&c.LogRotation, "log-rotation-config-json", c.LogRotation, "when to rotate: maxsize in MB, maxage in days, maxbackups, localtime, compress")
}

// Logger makes the logger that the configuration asks for.
func (c *Config) Logger() (*slog.Logger, error) {
	o, err := c.logOptions()
	if err != nil {
		return nil, err
	}
	return logs.Open(o)
}

func (c *Config) logOptions() (logs.Options, error) {
	level, err := c.logLevel()
	if err != nil {
		return logs.Options{}, fmt.Errorf("--log-level: %w", err)
	}
	o := logs.Options{Level: level, Format: c.LogFormat, Outputs: c.LogOutputs}
	if c.RotateLogs {
		o.Rotation, err = logs.ParseRotation(c.LogRotation)
		if err != nil {
			return o, fmt.Errorf("--log-rotation-config-json: %w", err)
		}
	}
	return o, o.Check()
}

func (c *Config) validateLogs() error {
	_, err := c.logOptions()
	return err
}

func (c *Config) logLevel() (level slog.Level, err error) {
	if c.LogLevel == logPanic || c.LogLevel == logFatal {
		return slog.LevelError + 4, nil
	}
	return level, level.UnmarshalText([]byte(c.LogLevel))
}

// idleOptions are warnings of options that change nothing without another one.
func (c *Config) idleOptions() (warnings []string) {
	if !c.RotateLogs && c.LogRotation != logRotationDefault {
		warnings = append(warnings, "--log-rotation-config-json has no effect without --enable-log-rotation")
	}
	return append(warnings, c.Tracing.idle()...)
}
