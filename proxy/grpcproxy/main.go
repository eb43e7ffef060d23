package grpcproxy

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/kvorum/kvorum/internal/notify"
	"github.com/kvorum/kvorum/proxy/command"
)

// Main is the command as a process; it returns the exit code.
func Main(name string, args []string, stdout, stderr io.Writer) int {
	var c Config
	if code, done := command.Parse(name, c.flags(name), args, stdout, stderr); done {
		return code
	}
	level := slog.LevelInfo
	if c.Debug {
		level = slog.LevelDebug
	}
	log := command.NewLog(stderr, level)
	log.Info("Running: ", "args", append(strings.Fields(name), args...))
	return command.UntilSignal(log, func(ctx context.Context) error { return run(ctx, c, log) })
}

func run(ctx context.Context, c Config, log *slog.Logger) error {
	p, err := New(ctx, c, log)
	if err != nil {
		return err
	}
	log.Info("listening for gRPC proxy client requests", "address", p.Addr().String())
	log.Info("ready to serve client requests", "endpoints", p.client.Endpoints(), "namespace", c.Namespace)
	notify.Ready()
	return p.Run(ctx)
}
