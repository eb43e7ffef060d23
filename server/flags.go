package server

import (
	"flag"
	"fmt"
	"io"
	"net/url"
	"strings"
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
	r, err := parseFlags(args, environ, usageWriter{out})
	if err != nil {
		err = hidingError{err}
	}
	return r, err
}

func parseFlags(args, environ []string, out io.Writer) (FlagResult, error) {
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
	r.warnFeatures()
	return r, r.Config.complete(fs)
}

// warnLimits tells of values that work but are not wise, or change nothing.
func (r *FlagResult) warnLimits() {
	const recommended = 10 << 20
	if n := r.Config.MaxRequestBytes; n > recommended {
		r.Warn = append(r.Warn, fmt.Sprintf("exceeded recommended request limit: --max-request-bytes=%d, recommended are at most %d", n, recommended))
	}
	r.Warn = append(r.Warn, r.Config.idleOptions()...)
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
	discoveryFlags(fs, c)
	storageFlags(fs, c)
	clientFlags(fs, c)
	tlsFlags(fs, c)
	authFlags(fs, c)
	observeFlags(fs, c)
}

func observeFlags(fs *flag.FlagSet, c *Config) {
	logFlags(fs, c)
	auditFlags(fs, c)
	traceFlags(fs, c)
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
	fs.DurationVar(&c.CorruptCheckTime, "corrupt-check-time", 0, "time between two comparisons of the members' data; 0 is never")
	fs.DurationVar(&c.CompactHashCheckTime, "compact-hash-check-time", c.CompactHashCheckTime, "time between two comparisons of the members' hashes of compactions, with the feature gate CompactHashCheck")
	fs.DurationVar(&c.DowngradeCheckTime, "downgrade-check-time", c.DowngradeCheckTime, "time between two looks whether a downgrade is complete")
	fs.IntVar(&c.MaxLearners, "max-learners", c.MaxLearners, "most learners in the cluster")
}

func storageFlags(fs *flag.FlagSet, c *Config) {
	fs.Uint64Var(&c.SnapshotCount, "snapshot-count", c.SnapshotCount, "applied entries between raft snapshots")
	fs.Uint64Var(&c.CatchUpEntries, "snapshot-catchup-entries", c.CatchUpEntries, "log entries kept for slow followers")
	fs.IntVar(&c.SnapshotsMax, "max-snapshots", c.SnapshotsMax, "raft snapshot files to keep, 0 for all")
	fs.IntVar(&c.WALsMax, "max-wals", c.WALsMax, "log files to keep, 0 for all")
	fs.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", 0, "most bytes of the database; 0 is 2 GiB, negative is no limit")
	fs.BoolVar(&c.HealQuota, "self-heal-quota", c.HealQuota, "count only bytes in use against the quota, and take the space alarm back when there is room; false is etcd's way")
	fs.DurationVar(&c.ScrubInterval, "scrub-interval", c.ScrubInterval, "time between two checks of everything in log and database against its checksums; 0 is never")
	fs.UintVar(&c.DefragFreePercent, "auto-defrag-free-percent", c.DefragFreePercent, "defragment when so much of the database is free; 0 is never")
	fs.UintVar(&c.DefragMinMegabytes, "auto-defrag-min-megabytes", c.DefragMinMegabytes, "and at least so many megabytes are")
	fs.DurationVar(&c.DefragTurn, "auto-defrag-turn", c.DefragTurn, "members take turns of this length at it")
	fs.DurationVar(&c.BatchInterval, "backend-batch-interval", c.BatchInterval, "longest time before applied changes are flushed to the database")
	fs.IntVar(&c.BatchLimit, "backend-batch-limit", c.BatchLimit, "most changes before they are flushed to the database")
	fs.BoolVar(&c.UnsafeNoFsync, "unsafe-no-fsync", false, "do not wait for the disk: UNSAFE, loses data when the power goes")
	fs.BoolVar(&c.MemoryLock, "memory-mlock", false, "keep the pages of the database in RAM (mlock); needs a memlock limit above its size")
	fs.IntVar(&c.CompactionBatch, "compaction-batch-limit", c.CompactionBatch, "revisions removed in one slice of a compaction")
	fs.DurationVar(&c.CompactionSleep, "compaction-sleep-interval", c.CompactionSleep, "pause between slices of a compaction")
	fs.Var(choiceValue{&c.AutoCompactionMode, []string{CompactPeriodic, CompactRevision}}, "auto-compaction-mode", "periodic or revision")
	fs.Func("feature-gates", "Name=true,…: "+strings.Join(featureNames(), ", "), c.setFeatures)
	fs.UintVar(&c.BootDefragMegabytes, "bootstrap-defrag-threshold-megabytes", 0, "defragment the database before the start if that frees at least so many megabytes; 0 is never")
	fs.StringVar(&c.AutoCompaction, "auto-compaction-retention", c.AutoCompaction, "what auto-compaction keeps: hours or a duration (periodic), or revisions; 0 is off")
}

func clientFlags(fs *flag.FlagSet, c *Config) {
	fs.UintVar(&c.MaxRequestBytes, "max-request-bytes", c.MaxRequestBytes, "most bytes of one client request")
	fs.Int64Var(&c.UnsentAnswerBytesMax, "max-unsent-answer-bytes", 0, "most bytes of large answers that wait for clients to read them; 0 is an eighth of the memory, at least 512 MiB")
	fs.UintVar(&c.MaxTxnOps, "max-txn-ops", c.MaxTxnOps, "most operations in one transaction")
	fs.Var(streamsValue{&c.MaxConcurrentStreams}, "max-concurrent-streams", "most concurrent streams of one client connection")
	fs.DurationVar(&c.KeepAliveMinTime, "grpc-keepalive-min-time", c.KeepAliveMinTime, "least time between pings of one client")
	fs.DurationVar(&c.KeepAliveInterval, "grpc-keepalive-interval", c.KeepAliveInterval, "time after which the server pings an idle client")
	fs.DurationVar(&c.KeepAliveTimeout, "grpc-keepalive-timeout", c.KeepAliveTimeout, "time to wait for the answer to that ping")
	fs.DurationVar(&c.ProgressInterval, "watch-progress-notify-interval", c.ProgressInterval, "time between progress notices to idle watchers")
	fs.BoolVar(&c.EnableGateway, "enable-grpc-gateway", c.EnableGateway, "serve JSON over HTTP under /v3/ on the client URLs")
	fs.BoolVar(&c.EnableV2, "enable-v2", c.EnableV2, "serve the v2 API under /v2/ on the client URLs")
	fs.BoolVar(&c.V2PrefixWrites, "unsafe-v2-prefix-writes", false, "let v3 requests write the keys in which the v2 API keeps its nodes")
	fs.Func("cors", "origins whose pages may use the HTTP interfaces, by commas; empty or * is all", parseList(&c.CORS))
	fs.Func("host-whitelist", "host names that HTTP requests in the clear may be made to, by commas; empty or * is all", parseList(&c.HostWhitelist))
}

func authFlags(fs *flag.FlagSet, c *Config) {
	fs.StringVar(&c.AuthToken, "auth-token", c.AuthToken, "simple, or jwt,sign-method=<method>,priv-key=<file>,pub-key=<file>,ttl=<duration>")
	fs.UintVar(&c.AuthTokenTTLSec, "auth-token-ttl", c.AuthTokenTTLSec, "seconds that an unused simple token lives")
	fs.IntVar(&c.BcryptCost, "bcrypt-cost", c.BcryptCost, "cost of hashing a password, 4 to 31")
}

func printUsage(out io.Writer, fs *flag.FlagSet) {
	fmt.Fprintln(out, "Usage:\n\n  "+programName()+" [flags]\n      Start a member. Every flag may also be given as ETCD_<FLAG>, as in ETCD_NAME.\n\nFlags:")
	fs.PrintDefaults()
}
