package server

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/api/token"
	"github.com/kvorum/kvorum/server/logs"
)

// Limits that a configuration must respect.
const (
	electionMillisMax = 50_000
	txnOpsDefault     = 128
	requestBytesMax   = 1_572_864
	quotaBytesDefault = 2 << 30
	bcryptCostDefault = 10
	catchUpEntriesMax = 1 << 30
	authTokenTTLMax   = 10 * 365 * 24 * 3600 // seconds
)

// Config is everything that a member is told from outside. DefaultConfig has
// etcd's defaults; Validate must pass before Start.
type Config struct {
	Name    string
	DataDir string
	WALDir  string // "" is DataDir/member/wal

	ListenPeerURLs          []url.URL
	ListenClientURLs        []url.URL
	ListenMetricsURLs       []url.URL
	ListenClientHTTPURLs    []url.URL // none: ListenClientURLs serve HTTP too
	ReusePort, ReuseAddress bool      // of all listening sockets
	AdvertisePeerURLs       []url.URL
	AdvertiseClientURLs     []url.URL

	InitialCluster      string // name=url,name=url2,…; "" is this member alone
	InitialClusterState string // ClusterNew or ClusterExisting
	InitialClusterToken string
	Discovery           Discovery // in the place of InitialCluster
	ForceNewCluster     bool
	StrictReconfigCheck bool
	MaxLearners         int

	HeartbeatMillis     int
	ElectionMillis      int
	ElectionTickAdvance bool
	PreVote             bool

	SnapshotCount      uint64 // applied entries between raft snapshots
	CatchUpEntries     uint64 // log entries kept in memory for slow followers
	SnapshotsMax       int    // .snap files kept, 0 = all
	WALsMax            int    // unlocked segments kept, 0 = all
	QuotaBackendBytes  int64  // 0 = 2 GiB, negative = off
	BatchInterval      time.Duration
	BatchLimit         int
	UnsafeNoFsync      bool
	MemoryLock         bool // keep the database's pages in RAM
	CompactionBatch    int
	CompactionSleep    time.Duration
	AutoCompactionMode string        // CompactPeriodic or CompactRevision
	AutoCompaction     string        // retention; "0" = off
	HealQuota          bool          // the quota counts bytes in use, and the space alarm is taken back
	ScrubInterval      time.Duration // between two checks of everything on the disk; 0 = never
	DefragFreePercent  uint          // defragment when so much of the file is free; 0 = never
	DefragMinMegabytes uint          // and at least so much
	DefragTurn         time.Duration

	UnsentAnswerBytesMax int64 // of large answers that wait to be read, 0 = by the memory
	MaxRequestBytes      uint
	MaxTxnOps            uint
	MaxConcurrentStreams uint32
	KeepAliveMinTime     time.Duration
	KeepAliveInterval    time.Duration
	KeepAliveTimeout     time.Duration
	ProgressInterval     time.Duration
	EnablePprof          bool
	EnableGateway        bool     // JSON over HTTP on the client URLs
	EnableV2             bool     // the v2 API on the client URLs
	V2PrefixWrites       bool     // the v3 API may write the keys of the v2 API
	CORS                 []string // origins whose pages may read answers; empty or "*" is all
	HostWhitelist        []string // host names of requests in the clear; empty or "*" is all

	ClientTLS, PeerTLS TransportSecurity
	SelfSignedYears    uint   // validity of the certificates of auto TLS
	CipherSuites       string // names by commas; "" is Go's choice
	TLSMinVersion      string // TLS12 or TLS13
	TLSMaxVersion      string // "" is the newest

	AuthToken       string // "simple", or "jwt" and its options
	AuthTokenTTLSec uint   // life of an unused simple token
	BcryptCost      int    // outside 4 to 31 it is the default

	RaftReadTimeout  time.Duration
	RaftWriteTimeout time.Duration

	FeatureGates         map[Feature]bool // those that were set
	CorruptCheckTime     time.Duration    // 0 is never
	CompactHashCheckTime time.Duration
	DowngradeCheckTime   time.Duration
	BootDefragMegabytes  uint          // 0 is never
	checkpointEvery      time.Duration // of leases, with FeatureLeaseCheckpoint
	applyLagMax          uint64        // entries committed and not applied, beyond which proposals are refused

	LogLevel    string
	LogOutputs  []string
	LogFormat   string // LogJSON or LogConsole
	RotateLogs  bool   // the one file of LogOutputs
	LogRotation string // when, as JSON; see logs.Rotation
	Audit       Audit
	Tracing     Tracing
	Metrics     string        // MetricsBasic or MetricsExtensive
	SlowApply   time.Duration // a command or batch that took longer is logged; 0: none
	SlowRequest time.Duration // a unary request that took longer is logged; 0: none
}

// The values of InitialClusterState and AutoCompactionMode.
const (
	ClusterNew      = "new"
	ClusterExisting = "existing"
	CompactPeriodic = "periodic"
	CompactRevision = "revision"
)

// The values of LogFormat and Metrics.
const (
	LogJSON          = logs.JSON
	LogConsole       = logs.Console
	MetricsBasic     = "basic"
	MetricsExtensive = "extensive"
)

// DefaultConfig is a single member on localhost, as etcd starts with no flags.
func DefaultConfig() Config {
	return Config{
		Name:                 "default",
		ListenPeerURLs:       mustURLs("http://localhost:2380"),
		ListenClientURLs:     mustURLs("http://localhost:2379"),
		AdvertisePeerURLs:    mustURLs("http://localhost:2380"),
		AdvertiseClientURLs:  mustURLs("http://localhost:2379"),
		InitialClusterState:  ClusterNew,
		InitialClusterToken:  "etcd-cluster",
		Discovery:            defaultDiscovery(),
		StrictReconfigCheck:  true,
		MaxLearners:          1,
		HeartbeatMillis:      100,
		ElectionMillis:       1000,
		ElectionTickAdvance:  true,
		PreVote:              true,
		SnapshotCount:        10_000,
		CatchUpEntries:       5_000,
		SnapshotsMax:         5,
		WALsMax:              5,
		BatchInterval:        100 * time.Millisecond,
		BatchLimit:           10_000,
		CompactionBatch:      1_000,
		CompactionSleep:      10 * time.Millisecond,
		AutoCompactionMode:   CompactPeriodic,
		AutoCompaction:       "0",
		HealQuota:            true,
		ScrubInterval:        24 * time.Hour,
		DefragFreePercent:    50,
		DefragMinMegabytes:   100,
		DefragTurn:           10 * time.Minute,
		MaxRequestBytes:      requestBytesMax,
		MaxTxnOps:            txnOpsDefault,
		MaxConcurrentStreams: 1<<32 - 1,
		KeepAliveMinTime:     5 * time.Second,
		KeepAliveInterval:    2 * time.Hour,
		KeepAliveTimeout:     20 * time.Second,
		ProgressInterval:     10 * time.Minute,
		EnableGateway:        true,
		EnableV2:             true,
		SelfSignedYears:      1,
		TLSMinVersion:        TLS12,
		AuthToken:            "simple",
		AuthTokenTTLSec:      uint(token.SimpleTTLDefault / time.Second),
		BcryptCost:           bcryptCostDefault,
		CompactHashCheckTime: time.Minute,
		DowngradeCheckTime:   5 * time.Second,
		checkpointEvery:      5 * time.Minute,
		applyLagMax:          5_000,
		RaftReadTimeout:      5 * time.Second,
		RaftWriteTimeout:     5 * time.Second,
		LogLevel:             "info",
		LogOutputs:           []string{logs.Default},
		LogRotation:          logRotationDefault,
		Audit:                Audit{Level: AuditMetadata, WhenFull: AuditWait},
		Tracing:              defaultTracing(),
		LogFormat:            LogJSON,
		Metrics:              MetricsBasic,
		SlowApply:            100 * time.Millisecond,
		SlowRequest:          300 * time.Millisecond,
	}
}

func mustURLs(list string) []url.URL {
	urls, err := ParseURLs(list)
	if err != nil {
		panic(err)
	}
	return urls
}

// ParseURLs reads a comma list of http, https, unix or unixs URLs, each with
// host:port and no path.
func ParseURLs(list string) ([]url.URL, error) {
	var urls []url.URL
	for part := range strings.SplitSeq(list, ",") {
		u, err := parseURL(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		urls = append(urls, *u)
	}
	slices.SortFunc(urls, func(a, b url.URL) int { return strings.Compare(a.String(), b.String()) })
	return urls, nil
}

func parseURL(s string) (*url.URL, error) { return api.ParseURL(s) }

// urlStrings gives the URLs as text, in order.
func urlStrings(urls []url.URL) []string {
	out := make([]string, len(urls))
	for i := range urls {
		out[i] = urls[i].String()
	}
	return out
}

// Validate checks what one field cannot check alone. The error names the flag
// and what is allowed.
func (c *Config) Validate() error {
	for _, check := range []func() error{
		c.validateTimes, c.validateURLs, c.validateTLS, c.validateCluster, c.validateDiscovery, c.validateLimits, c.validateAuth,
		c.validateFeatures, c.validateLogs, c.validateAudit, c.validateTracing,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) validateTimes() error {
	if c.HeartbeatMillis <= 0 {
		return fmt.Errorf("--heartbeat-interval must be >0 (set to %dms)", c.HeartbeatMillis)
	}
	if c.ElectionMillis <= 0 {
		return fmt.Errorf("--election-timeout must be >0 (set to %dms)", c.ElectionMillis)
	}
	if 5*c.HeartbeatMillis > c.ElectionMillis {
		return fmt.Errorf("--election-timeout[%vms] should be at least as 5 times as --heartbeat-interval[%vms]", c.ElectionMillis, c.HeartbeatMillis)
	}
	if c.ElectionMillis > electionMillisMax {
		return fmt.Errorf("--election-timeout[%vms] is too long, and should be set less than %vms", c.ElectionMillis, electionMillisMax)
	}
	if c.ProgressInterval < 100*time.Millisecond {
		return fmt.Errorf("--watch-progress-notify-interval must be at least 100ms (set to %v)", c.ProgressInterval)
	}
	return c.validateChecks()
}

// validateChecks checks the times of the members' checks on each other.
func (c *Config) validateChecks() error {
	if c.CorruptCheckTime < 0 {
		return fmt.Errorf("--corrupt-check-time must be >0, or 0 for never (set to %v)", c.CorruptCheckTime)
	}
	if c.CompactHashCheckTime <= 0 {
		return fmt.Errorf("--compact-hash-check-time must be >0 (set to %v)", c.CompactHashCheckTime)
	}
	if c.DowngradeCheckTime < 0 {
		return fmt.Errorf("--downgrade-check-time must not be negative (set to %v)", c.DowngradeCheckTime)
	}
	return nil
}

func (c *Config) validateURLs() error {
	for _, list := range []struct {
		flag string
		urls []url.URL
	}{{"--listen-peer-urls", c.ListenPeerURLs}, {"--listen-client-urls", c.ListenClientURLs}, {"--listen-metrics-urls", c.ListenMetricsURLs}, {"--listen-client-http-urls", c.ListenClientHTTPURLs}} {
		for _, u := range list.urls {
			if u.Scheme != "http" && u.Scheme != "https" {
				continue
			}
			host, _, err := net.SplitHostPort(u.Host)
			if err != nil {
				return fmt.Errorf("%s: %w", list.flag, err)
			}
			if host != "localhost" && net.ParseIP(host) == nil {
				return fmt.Errorf("expected IP in URL for binding (%s)", u.String())
			}
		}
	}
	return nil
}

func (c *Config) validateCluster() error {
	if c.InitialClusterState != ClusterNew && c.InitialClusterState != ClusterExisting {
		return fmt.Errorf("--initial-cluster-state must be %q or %q, not %q", ClusterNew, ClusterExisting, c.InitialClusterState)
	}
	if c.Name == "" {
		return fmt.Errorf("--name must not be empty")
	}
	if c.MaxLearners < 0 {
		return fmt.Errorf("--max-learners must not be negative (set to %d)", c.MaxLearners)
	}
	return nil
}

func (c *Config) validateLimits() error {
	if c.SnapshotCount == 0 {
		return fmt.Errorf("--snapshot-count must be >0")
	}
	if c.MaxTxnOps == 0 {
		return fmt.Errorf("--max-txn-ops must be >0")
	}
	if c.MaxRequestBytes == 0 || c.MaxRequestBytes > 1<<30 {
		return fmt.Errorf("--max-request-bytes must be between 1 and %d (set to %d)", 1<<30, c.MaxRequestBytes)
	}
	if c.AutoCompactionMode != CompactPeriodic && c.AutoCompactionMode != CompactRevision {
		return fmt.Errorf("--auto-compaction-mode must be %q or %q, not %q", CompactPeriodic, CompactRevision, c.AutoCompactionMode)
	}
	if c.ScrubInterval < 0 {
		return fmt.Errorf("--scrub-interval must not be negative (set to %v)", c.ScrubInterval)
	}
	if c.DefragFreePercent > 95 {
		return fmt.Errorf("--auto-defrag-free-percent must be between 0 and 95 (set to %d)", c.DefragFreePercent)
	}
	if c.DefragMinMegabytes > 1<<20 {
		return fmt.Errorf("--auto-defrag-min-megabytes must be between 0 and %d (set to %d)", 1<<20, c.DefragMinMegabytes)
	}
	if c.DefragTurn < time.Second {
		return fmt.Errorf("--auto-defrag-turn must be at least 1s (set to %v)", c.DefragTurn)
	}
	if _, err := parseRetention(c.AutoCompactionMode, c.AutoCompaction); err != nil {
		return err
	}
	return nil
}

func (c *Config) validateAuth() error {
	if c.AuthTokenTTLSec > authTokenTTLMax {
		return fmt.Errorf("--auth-token-ttl must be between 1 and %d seconds, or 0 for %v (set to %d)", authTokenTTLMax, token.SimpleTTLDefault, c.AuthTokenTTLSec)
	}
	_, err := token.New(c.tokens())
	return err
}

// tokens is the choice of tokens.
func (c *Config) tokens() token.Config {
	return token.Config{Spec: c.AuthToken, SimpleTTL: time.Duration(c.AuthTokenTTLSec) * time.Second}
}

// electionTicks is the election timeout in heartbeats.
func (c *Config) electionTicks() int { return c.ElectionMillis / c.HeartbeatMillis }

// electionTimeout is the election timeout as a duration.
func (c *Config) electionTimeout() time.Duration {
	return time.Duration(c.electionTicks()*c.HeartbeatMillis) * time.Millisecond
}

// requestTimeout bounds a proposal and a read-index: 5 s for the disk and two
// elections.
func (c *Config) requestTimeout() time.Duration { return 5*time.Second + 2*c.electionTimeout() }

// catchUpEntries is never 0, which would be the default of raft.
func (c *Config) catchUpEntries() int { return int(max(1, min(c.CatchUpEntries, catchUpEntriesMax))) }

// minLeaseTTL is the shortest lease in seconds: a lease must outlive an
// election, else a leader change would always end it.
func (c *Config) minLeaseTTL() int64 {
	millis := (3 * c.electionTicks()) / 2 * c.HeartbeatMillis
	return int64((millis + 999) / 1000)
}

// quotaBytes is the effective quota; 0 means none.
func (c *Config) quotaBytes() int64 {
	switch {
	case c.QuotaBackendBytes == 0:
		return quotaBytesDefault
	case c.QuotaBackendBytes < 0:
		return 0
	}
	return c.QuotaBackendBytes
}
