package server

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrUsage marks an error in how the flags were written; the usage has already
// been printed.
var ErrUsage = fmt.Errorf("usage")

// FlagResult is what ParseFlags found besides the configuration.
type FlagResult struct {
	Config  Config
	Version bool // --version was given
	Warn    []string
}

// ParseFlags reads etcd's flags and then the ETCD_* variables of environ, or a
// configuration file in the place of both. A flag and its variable given together are an error; an unknown variable only
// warns. Usage errors are printed to out and wrap ErrUsage.
func ParseFlags(args, environ []string, out io.Writer) (FlagResult, error) {
	r := FlagResult{Config: DefaultConfig()}
	fs := flag.NewFlagSet("kvorum", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() { printUsage(out, fs) }
	fs.BoolVar(&r.Version, "version", false, "print the version and exit")
	fs.String("config-file", "", "YAML or JSON file with the configuration; other flags and variables are ignored then")
	defineFlags(fs, &r.Config)
	defineOtherFlags(fs, &r.Warn)
	if err := fs.Parse(args); err != nil {
		return r, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if fs.NArg() > 0 {
		return r, fmt.Errorf("%q is not a valid flag", fs.Arg(0))
	}
	if path, err := configPath(fs, environ); path != "" || err != nil {
		if err != nil {
			return r, err
		}
		return r, r.readFile(path, fs, environ)
	}
	if err := r.readEnvironment(fs, environ); err != nil {
		return r, err
	}
	r.warnLimits()
	return r, r.Config.complete(fs)
}

// warnLimits tells of values that work but are not wise.
func (r *FlagResult) warnLimits() {
	const recommended = 10 << 20
	if n := r.Config.MaxRequestBytes; n > recommended {
		r.Warn = append(r.Warn, fmt.Sprintf("exceeded recommended request limit: --max-request-bytes=%d, recommended are at most %d", n, recommended))
	}
}

func (r *FlagResult) readEnvironment(fs *flag.FlagSet, environ []string) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(key, "ETCD_") || value == "" {
			continue
		}
		name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, "ETCD_")), "_", "-")
		switch {
		case isSwitch(key):
		case fs.Lookup(name) == nil:
			r.Warn = append(r.Warn, "unrecognized environment variable "+key)
		case given[name]:
			return shadowed(key, name)
		default:
			if err := fs.Set(name, value); err != nil {
				return fmt.Errorf("invalid value %q for environment variable %s: %w", value, key, err)
			}
		}
	}
	return nil
}

// isSwitch tells of variables that are not flags.
func isSwitch(key string) bool { return key == "ETCD_UNSUPPORTED_ARCH" || key == "ETCD_VERIFY" }

func shadowed(key, name string) error {
	return fmt.Errorf("conflicting environment variable %s is shadowed by corresponding command-line flag --%s (either unset environment variable or disable flag)", key, name)
}

// complete fills what follows from other flags and checks that related flags
// were given together.
func (c *Config) complete(fs *flag.FlagSet) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["listen-client-urls"] && !given["advertise-client-urls"] {
		return fmt.Errorf("--advertise-client-urls is required when --listen-client-urls is set explicitly")
	}
	if c.DataDir == "" {
		c.DataDir = c.Name + ".etcd"
	}
	return c.Validate()
}

type urlsValue struct{ urls *[]url.URL }

func (v urlsValue) String() string {
	if v.urls == nil {
		return ""
	}
	return strings.Join(urlStrings(*v.urls), ",")
}

func (v urlsValue) Set(s string) error {
	if s == "" {
		*v.urls = nil
		return nil
	}
	urls, err := ParseURLs(s)
	if err == nil {
		*v.urls = urls
	}
	return err
}

type choiceValue struct {
	value   *string
	allowed []string
}

func (v choiceValue) String() string {
	if v.value == nil {
		return ""
	}
	return *v.value
}

func (v choiceValue) Set(s string) error {
	for _, a := range v.allowed {
		if s == a {
			*v.value = s
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(v.allowed, ", "))
}

type streamsValue struct{ n *uint32 }

func (v streamsValue) String() string {
	if v.n == nil {
		return ""
	}
	return fmt.Sprint(*v.n)
}

func (v streamsValue) Set(s string) error {
	_, err := fmt.Sscanf(s, "%d", v.n)
	return err
}

func defineFlags(fs *flag.FlagSet, c *Config) {
	memberFlags(fs, c)
	clusterFlags(fs, c)
	storageFlags(fs, c)
	clientFlags(fs, c)
	tlsFlags(fs, c)
	authFlags(fs, c)
	observeFlags(fs, c)
}

func observeFlags(fs *flag.FlagSet, c *Config) {
	fs.Var(choiceValue{&c.LogFormat, []string{LogJSON, LogConsole}}, "log-format", "json, or console for reading by people")
	fs.Var(choiceValue{&c.Metrics, []string{MetricsBasic, MetricsExtensive}}, "metrics", "basic, or extensive for durations of every RPC")
	fs.DurationVar(&c.SlowApply, "warning-apply-duration", c.SlowApply, "time after which applying is worth a warning")
	fs.DurationVar(&c.SlowRequest, "warning-unary-request-duration", c.SlowRequest, "time after which a request is worth a warning")
}

func memberFlags(fs *flag.FlagSet, c *Config) {
	fs.StringVar(&c.Name, "name", c.Name, "name of this member")
	fs.StringVar(&c.DataDir, "data-dir", "", "folder of the data (default <name>.etcd)")
	fs.StringVar(&c.WALDir, "wal-dir", "", "folder of the log, when it is to be on another disk")
	fs.Var(urlsValue{&c.ListenPeerURLs}, "listen-peer-urls", "URLs to listen on for members")
	fs.Var(urlsValue{&c.ListenClientURLs}, "listen-client-urls", "URLs to listen on for clients")
	fs.Var(urlsValue{&c.ListenClientHTTPURLs}, "listen-client-http-urls", "URLs for HTTP; those for clients serve gRPC alone then")
	fs.BoolVar(&c.ReusePort, "socket-reuse-port", false, "let other processes listen on the same ports (SO_REUSEPORT)")
	fs.BoolVar(&c.ReuseAddress, "socket-reuse-address", false, "listen on addresses that connections are still closing on (SO_REUSEADDR)")
	fs.Var(urlsValue{&c.ListenMetricsURLs}, "listen-metrics-urls", "more URLs that serve /metrics and /health only")
	fs.IntVar(&c.HeartbeatMillis, "heartbeat-interval", c.HeartbeatMillis, "milliseconds between heartbeats")
	fs.IntVar(&c.ElectionMillis, "election-timeout", c.ElectionMillis, "milliseconds without a leader before an election")
	fs.BoolVar(&c.ElectionTickAdvance, "initial-election-tick-advance", c.ElectionTickAdvance, "start the first election sooner")
	fs.BoolVar(&c.PreVote, "pre-vote", c.PreVote, "ask whether an election can be won before starting it")
	fs.DurationVar(&c.RaftReadTimeout, "raft-read-timeout", c.RaftReadTimeout, "read timeout of a connection to a member")
	fs.DurationVar(&c.RaftWriteTimeout, "raft-write-timeout", c.RaftWriteTimeout, "write timeout of a connection to a member")
	fs.Var(choiceValue{&c.LogLevel, []string{"debug", "info", "warn", "error", logPanic, logFatal}}, "log-level", "least level to log: debug, info, warn, error, panic, fatal")
	fs.Func("log-outputs", "stderr, stdout or file names, by commas (default stderr)", func(s string) error {
		c.LogOutputs = strings.Split(s, ",")
		return nil
	})
	fs.BoolVar(&c.EnablePprof, "enable-pprof", false, "serve /debug/pprof on the client URLs")
}

func clusterFlags(fs *flag.FlagSet, c *Config) {
	fs.Var(urlsValue{&c.AdvertisePeerURLs}, "initial-advertise-peer-urls", "this member's peer URLs as the others see them")
	fs.Var(urlsValue{&c.AdvertiseClientURLs}, "advertise-client-urls", "this member's client URLs as clients see them")
	fs.StringVar(&c.InitialCluster, "initial-cluster", "", "members of a new cluster: name=url,name=url (default <name>=<initial-advertise-peer-urls>)")
	fs.Var(choiceValue{&c.InitialClusterState, []string{ClusterNew, ClusterExisting}}, "initial-cluster-state", "new, or existing to join a running cluster")
	fs.StringVar(&c.InitialClusterToken, "initial-cluster-token", c.InitialClusterToken, "keeps clusters with equal URLs apart")
	fs.BoolVar(&c.ForceNewCluster, "force-new-cluster", false, "keep the data, drop every other member")
	fs.BoolVar(&c.StrictReconfigCheck, "strict-reconfig-check", c.StrictReconfigCheck, "refuse member changes that would lose the quorum")
	fs.IntVar(&c.MaxLearners, "max-learners", c.MaxLearners, "most learners in the cluster")
}

func storageFlags(fs *flag.FlagSet, c *Config) {
	fs.Uint64Var(&c.SnapshotCount, "snapshot-count", c.SnapshotCount, "applied entries between raft snapshots")
	fs.Uint64Var(&c.CatchUpEntries, "snapshot-catchup-entries", c.CatchUpEntries, "log entries kept for slow followers")
	fs.IntVar(&c.SnapshotsMax, "max-snapshots", c.SnapshotsMax, "raft snapshot files to keep, 0 for all")
	fs.IntVar(&c.WALsMax, "max-wals", c.WALsMax, "log files to keep, 0 for all")
	fs.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", 0, "most bytes of the database; 0 is 2 GiB, negative is no limit")
	fs.BoolVar(&c.HealQuota, "self-heal-quota", c.HealQuota, "count only bytes in use against the quota, and take the space alarm back when there is room; false is etcd's way")
	fs.UintVar(&c.DefragFreePercent, "auto-defrag-free-percent", c.DefragFreePercent, "defragment when so much of the database is free; 0 is never")
	fs.UintVar(&c.DefragMinMegabytes, "auto-defrag-min-megabytes", c.DefragMinMegabytes, "and at least so many megabytes are")
	fs.DurationVar(&c.DefragTurn, "auto-defrag-turn", c.DefragTurn, "members take turns of this length at it")
	fs.DurationVar(&c.BatchInterval, "backend-batch-interval", c.BatchInterval, "longest time before applied changes are flushed to the database")
	fs.IntVar(&c.BatchLimit, "backend-batch-limit", c.BatchLimit, "most changes before they are flushed to the database")
	fs.BoolVar(&c.UnsafeNoFsync, "unsafe-no-fsync", false, "do not wait for the disk: UNSAFE, loses data when the power goes")
	fs.IntVar(&c.CompactionBatch, "compaction-batch-limit", c.CompactionBatch, "revisions removed in one slice of a compaction")
	fs.DurationVar(&c.CompactionSleep, "compaction-sleep-interval", c.CompactionSleep, "pause between slices of a compaction")
	fs.Var(choiceValue{&c.AutoCompactionMode, []string{CompactPeriodic, CompactRevision}}, "auto-compaction-mode", "periodic or revision")
	fs.Func("feature-gates", "Name=true,…: "+strings.Join(featureNames(), ", "), c.setFeatures)
	fs.StringVar(&c.AutoCompaction, "auto-compaction-retention", c.AutoCompaction, "what auto-compaction keeps: hours or a duration (periodic), or revisions; 0 is off")
}

// features are etcd's feature gates with their defaults.
func features() map[string]bool {
	return map[string]bool{
		"AllAlpha": false, "AllBeta": false, "CompactHashCheck": false, "FastLeaseKeepAlive": true,
		"InitialCorruptCheck": false, "LeaseCheckpoint": false, "LeaseCheckpointPersist": false, "PriorityRequest": false,
		"SetMemberLocalAddr": false, "StopGRPCServiceOnDefrag": false, "TxnModeWriteWithSharedBuffer": true,
	}
}

func featureNames() []string { return slices.Sorted(maps.Keys(features())) }

// setFeatures takes a list Name=true,…. A feature that this version lacks can
// only be given its default.
func (c *Config) setFeatures(list string) error {
	known := features()
	for part := range strings.SplitSeq(list, ",") {
		name, text, _ := strings.Cut(strings.TrimSpace(part), "=")
		normal, ok := known[name]
		if !ok {
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
		on, err := strconv.ParseBool(text)
		switch {
		case err != nil:
			return fmt.Errorf("invalid value of %s: %w", name, err)
		case name == "CompactHashCheck":
			c.CompactHashes = on
		case on != normal:
			return fmt.Errorf("feature gate %s=%t is not supported by this version", name, on)
		}
	}
	return nil
}

func clientFlags(fs *flag.FlagSet, c *Config) {
	fs.UintVar(&c.MaxRequestBytes, "max-request-bytes", c.MaxRequestBytes, "most bytes of one client request")
	fs.UintVar(&c.MaxTxnOps, "max-txn-ops", c.MaxTxnOps, "most operations in one transaction")
	fs.Var(streamsValue{&c.MaxConcurrentStreams}, "max-concurrent-streams", "most concurrent streams of one client connection")
	fs.DurationVar(&c.KeepAliveMinTime, "grpc-keepalive-min-time", c.KeepAliveMinTime, "least time between pings of one client")
	fs.DurationVar(&c.KeepAliveInterval, "grpc-keepalive-interval", c.KeepAliveInterval, "time after which the server pings an idle client")
	fs.DurationVar(&c.KeepAliveTimeout, "grpc-keepalive-timeout", c.KeepAliveTimeout, "time to wait for the answer to that ping")
	fs.DurationVar(&c.ProgressInterval, "watch-progress-notify-interval", c.ProgressInterval, "time between progress notices to idle watchers")
	fs.BoolVar(&c.EnableGateway, "enable-grpc-gateway", c.EnableGateway, "serve JSON over HTTP under /v3/ on the client URLs")
	fs.Func("cors", "origins whose pages may use the HTTP interfaces, by commas; empty or * is all", parseList(&c.CORS))
	fs.Func("host-whitelist", "host names that HTTP requests in the clear may be made to, by commas; empty or * is all", parseList(&c.HostWhitelist))
}

func authFlags(fs *flag.FlagSet, c *Config) {
	fs.StringVar(&c.AuthToken, "auth-token", c.AuthToken, "simple, or jwt,sign-method=<method>,priv-key=<file>,pub-key=<file>,ttl=<duration>")
	fs.UintVar(&c.AuthTokenTTLSec, "auth-token-ttl", c.AuthTokenTTLSec, "seconds that an unused simple token lives")
	fs.IntVar(&c.BcryptCost, "bcrypt-cost", c.BcryptCost, "cost of hashing a password, 4 to 31")
}

func printUsage(out io.Writer, fs *flag.FlagSet) {
	fmt.Fprintln(out, "Usage:\n\n  kvorum [flags]\n      Start a member. Every flag may also be given as ETCD_<FLAG>, as in ETCD_NAME.\n\nFlags:")
	fs.PrintDefaults()
}

// Logger makes the logger that the configuration asks for: one JSON object per
// line with etcd's keys (level, ts, caller, msg).
func (c *Config) Logger() (*slog.Logger, error) {
	level, err := c.logLevel()
	if err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	var outs []io.Writer
	for _, o := range c.LogOutputs {
		switch o {
		case "default", "stderr":
			outs = append(outs, os.Stderr)
		case "stdout":
			outs = append(outs, os.Stdout)
		case "systemd/journal":
			return nil, fmt.Errorf("--log-outputs: %s is not supported by this version; use default: systemd keeps what goes to stderr", o)
		default:
			f, err := os.OpenFile(o, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return nil, fmt.Errorf("--log-outputs: %w", err)
			}
			outs = append(outs, f)
		}
	}
	if c.LogFormat == LogConsole {
		return slog.New(slog.NewTextHandler(io.MultiWriter(outs...), logOptions(level))), nil
	}
	return newLogger(io.MultiWriter(outs...), level), nil
}

// The levels of etcd at which this server never logs.
const (
	logPanic = "panic"
	logFatal = "fatal"
)

func (c *Config) logLevel() (level slog.Level, err error) {
	if c.LogLevel == logPanic || c.LogLevel == logFatal {
		return slog.LevelError + 4, nil
	}
	return level, level.UnmarshalText([]byte(c.LogLevel))
}

func newLogger(out io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(out, logOptions(level)))
}

func logOptions(level slog.Level) *slog.HandlerOptions {
	return &slog.HandlerOptions{AddSource: true, Level: level, ReplaceAttr: logAttr}
}

// logAttr renames slog's keys to those that tools written for etcd parse.
func logAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("ts", a.Value.Time().UTC().Format("2006-01-02T15:04:05.000000Z0700"))
	case slog.LevelKey:
		return slog.String("level", strings.ToLower(a.Value.String()))
	case slog.SourceKey:
		if src, ok := a.Value.Any().(*slog.Source); ok {
			return slog.String("caller", shortSource(src))
		}
	}
	if d, ok := a.Value.Any().(time.Duration); ok {
		return slog.String(a.Key, d.String())
	}
	return a
}

// shortSource is folder/file.go:line.
func shortSource(src *slog.Source) string {
	parts := strings.Split(src.File, "/")
	if len(parts) > 2 {
		parts = parts[len(parts)-2:]
	}
	return fmt.Sprintf("%s:%d", strings.Join(parts, "/"), src.Line)
}
