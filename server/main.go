package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/server/logs"
)

// Exit codes of the process.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	logMainLine = "Running: "
	exitSignal  = 128         // as shells write the end by a signal
	signalMax   = time.Second // until a process dies of a signal to itself
)

// Main is the server as a process: it reads flags and variables, runs until
// SIGTERM or SIGINT, and returns the exit code.
func Main(args, environ []string, stdout, stderr io.Writer) int {
	flags, err := ParseFlags(args, environ, stderr)
	switch {
	case errors.Is(err, ErrUsage):
		return exitUsage
	case err == nil && flags.Version:
		printVersion(stdout)
		return exitOK
	}
	log, logErr := flags.Config.Logger()
	if logErr != nil {
		logs.New(stderr, slog.LevelInfo).Warn("failed to verify flags", "error", logErr.Error())
		return exitFailed
	}
	if err != nil {
		log.Warn("failed to verify flags", "error", err.Error())
		return exitFailed
	}
	for _, w := range flags.Warn {
		log.Warn(w)
	}
	log.Info(logMainLine, "args", withoutSecrets(args))
	return runUntilSignal(flags.Config, log)
}

func runUntilSignal(cfg Config, log *slog.Logger) int {
	ctx, die := signalContext(log)
	defer die()
	log.Info("starting an etcd server", "etcd-version", version.API, "kvorum-version", version.Kvorum, "git-sha", version.Commit(),
		"go-version", runtime.Version(), "go-os", runtime.GOOS, "go-arch", runtime.GOARCH, "name", cfg.Name, "data-dir", cfg.DataDir,
		"listen-client-urls", urlStrings(cfg.ListenClientURLs), "listen-peer-urls", urlStrings(cfg.ListenPeerURLs),
		"advertise-client-urls", urlStrings(cfg.AdvertiseClientURLs), "initial-cluster", hideUsers(cfg.InitialCluster),
		"heartbeat-interval", cfg.HeartbeatMillis, "election-timeout", cfg.ElectionMillis,
		"snapshot-count", cfg.SnapshotCount, "quota-backend-bytes", cfg.quotaBytes(), "config", cfg.summary())
	s, err := New(ctx, cfg, log)
	if err != nil {
		log.Error("discovery failed", "error", hideUsers(err.Error()))
		return exitFailed
	}
	who := []any{"name", cfg.Name, "data-dir", cfg.DataDir, "advertise-peer-urls", urlStrings(cfg.AdvertisePeerURLs), "advertise-client-urls", urlStrings(cfg.AdvertiseClientURLs)}
	stop := context.AfterFunc(ctx, func() { log.Info("closing etcd server", who...) })
	defer stop()
	go keepHeapFloor(ctx)
	if err := s.Run(ctx); err != nil {
		log.Error("stopped", "error", err.Error())
		return exitFailed
	}
	log.Info("closed etcd server", who...)
	return exitOK
}

// signalContext is done at the first SIGTERM or SIGINT. die ends the process by
// that signal, so that whoever waits for it sees how it ended; process 1, which
// cannot die of a signal, and a process that got none just return.
func signalContext(log *slog.Logger) (ctx context.Context, die func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	got := make(chan syscall.Signal, 1)
	go func() {
		sig := (<-signals).(syscall.Signal)
		log.Info("received signal; shutting down", "signal", sig.String())
		got <- sig
		cancel()
	}()
	return ctx, func() {
		cancel()
		select {
		case sig := <-got:
			if os.Getpid() == 1 {
				return
			}
			signal.Reset(sig)
			_ = syscall.Kill(os.Getpid(), sig)
			time.Sleep(signalMax)
			os.Exit(exitSignal + int(sig)) // whoever started us had the signal ignored, as shells do with & and SIGINT
		default:
		}
	}
}

func printVersion(w io.Writer) {
	fmt.Fprintf(w, "etcd Version: %s\nGit SHA: %s\nGo Version: %s\nGo OS/Arch: %s/%s\nKvorum Version: %s\n",
		version.API, version.Commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH, version.Kvorum)
}

// summary is the rest of the configuration, for one line in the log.
func (c *Config) summary() string {
	return fmt.Sprintf("max-request-bytes=%d max-txn-ops=%d auto-compaction=%s/%s pre-vote=%t strict-reconfig-check=%t force-new-cluster=%t unsafe-no-fsync=%t",
		c.MaxRequestBytes, c.MaxTxnOps, c.AutoCompactionMode, c.AutoCompaction, c.PreVote, c.StrictReconfigCheck, c.ForceNewCluster, c.UnsafeNoFsync)
}
