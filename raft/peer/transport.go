package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sort"
	"sync"
	"time"

	"github.com/coreos/go-semver/semver"
	"go.etcd.io/raft/v3/raftpb"
)

// Config describes this member to the others and bounds what the transport may
// hold. Zero fields take the default that is named with them.
type Config struct {
	Self    uint64 // this member
	Cluster uint64 // the cluster; messages of any other are refused

	// LocalURLs are the peer URLs that this member advertises. May be nil when
	// LocalURLsNow is given.
	LocalURLs []string
	// LocalURLsNow, when not nil, is asked for the advertised URLs instead.
	LocalURLsNow func() []string

	Version           string // default "3.7.1"; told to the others
	MinClusterVersion string // default "3.0.0"; the oldest member that we talk to

	Receiver Receiver
	Observer Observer     // may be nil
	Logger   *slog.Logger // default: discard

	// TLS gives the client configuration for the next https connection. Asked
	// at every dial, so that certificates can be replaced. Nil: the defaults
	// of crypto/tls.
	TLS func() *tls.Config
	// Dial replaces net.Dialer. network is "tcp" or "unix".
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	SnapDir string // where received databases go

	DialTimeout  time.Duration // default 2 s
	ReadTimeout  time.Duration // default 5 s; a stream that is silent for this long is broken; heartbeats come at a third of it
	WriteTimeout time.Duration // default 5 s; one write that takes longer breaks the stream
	RetryEvery   time.Duration // default 100 ms; the least time between two dials of one stream
	ProbeEvery   time.Duration // default 4 s
	StallTimeout time.Duration // default 30 s; a snapshot that makes no progress for this long is given up

	QueueCountMax     int // default 4096 messages waiting for one stream
	QueueBytesMax     int // default 64 MiB waiting for one stream; one message is always taken
	PostCountMax      int // default 64 messages waiting to be posted
	SnapshotsInMax    int // default 2 snapshots being received at once
	RemotesUnknownMax int // default 32 remotes remembered because they called us
}

// Receiver is what the transport tells its owner. Receive and ReceiveSnapshot
// are called from many goroutines; the reports Unreachable, SnapshotSent and
// SelfRemoved come one at a time, never from inside a call of the owner.
type Receiver interface {
	// Receive takes one message. It must not wait for long: it holds up the
	// stream. An error says that the message was dropped.
	Receive(ctx context.Context, m *raftpb.Message) error
	// ReceiveSnapshot takes a MsgSnap whose database is already durable at
	// dbPath. The file is the owner's afterwards, also after an error.
	ReceiveSnapshot(ctx context.Context, m *raftpb.Message, dbPath string) error
	// Unreachable says that messages to id were lost.
	Unreachable(id uint64)
	// SnapshotSent gives the outcome of a MsgSnap. ok means that the member
	// has stored the database.
	SnapshotSent(id uint64, ok bool)
	// Removed reports whether id was once a member and was removed.
	Removed(id uint64) bool
	// SelfRemoved says, once, that another member told us that we were removed.
	SelfRemoved()
}

// Observer is told about durations, for histograms. Everything else is in Stats.
type Observer interface {
	// RoundTrip is the time that a probe of the member took.
	RoundTrip(to uint64, d time.Duration)
	// SnapshotSend and SnapshotReceive are told when a transfer has ended.
	SnapshotSend(to uint64, d time.Duration, err error)
	SnapshotReceive(from uint64, d time.Duration, err error)
	// SnapshotSaved is told how long a received database took to come and to be
	// made durable, and how long its sync took of that.
	SnapshotSaved(total, sync time.Duration)
}

// Errors that tell why a member does not talk to us, or we not to it.
var (
	// ErrStopped: the transport was stopped. Do not use it again.
	ErrStopped = errors.New("peer: transport stopped")
	// ErrIncompatible: the versions of the two members do not work together.
	ErrIncompatible = errors.New("incompatible version")
	// ErrClusterMismatch: the other belongs to another cluster. Check the
	// peer URLs.
	ErrClusterMismatch = errors.New("cluster ID mismatch")
	// ErrRemoved: one of the two was removed from the cluster.
	ErrRemoved = errors.New("removed member")
	// ErrNotForUs: the message is addressed to another member.
	ErrNotForUs = errors.New("to field mismatch")
	// ErrTooLarge: a length is beyond what the protocol allows.
	ErrTooLarge = errors.New("peer: message too large")
	// ErrMalformed: the bytes are not of the protocol.
	ErrMalformed = errors.New("peer: malformed frame")
)

// Transport is the set of links of one member to all others.
type Transport struct {
	cfg        Config
	version    *semver.Version
	minVersion *semver.Version
	log        *slog.Logger
	streams    *http.Client // long-lived GETs
	posts      *http.Client // messages without a stream, probes, snapshots
	reports    *reports
	refusals   sometimes
	ctx        context.Context // ends all links
	stop       context.CancelFunc
	work       sync.WaitGroup // links and requests under way

	// mu guards what follows. It is never held across I/O or a callback, and
	// is taken before the lock of a peer or of a queue.
	mu          sync.Mutex
	peers       map[uint64]*peer
	started     bool
	stopped     bool
	snapshotsIn map[uint64]int // being received, by sender
}

// New returns a transport without links. Links begin to work when Run does.
func New(cfg Config) (*Transport, error) {
	cfg.setDefaults()
	version, err := semver.NewVersion(cfg.Version)
	if err != nil {
		return nil, fmt.Errorf("parse version %q: %w", cfg.Version, err)
	}
	minVersion, err := semver.NewVersion(cfg.MinClusterVersion)
	if err != nil {
		return nil, fmt.Errorf("parse minimum cluster version %q: %w", cfg.MinClusterVersion, err)
	}
	if cfg.Receiver == nil || cfg.Self == 0 {
		return nil, errors.New("peer: a receiver and a member ID are needed")
	}
	ctx, stop := context.WithCancel(context.Background())
	t := &Transport{
		cfg: cfg, version: version, minVersion: minVersion, log: cfg.Logger,
		reports: newReports(), ctx: ctx, stop: stop,
		peers: map[uint64]*peer{}, snapshotsIn: map[uint64]int{},
	}
	t.streams = newClient(&t.cfg, connTimeouts{read: cfg.ReadTimeout, write: cfg.WriteTimeout})
	t.posts = newClient(&t.cfg, connTimeouts{})
	return t, nil
}

func (c *Config) setDefaults() {
	setDefault(&c.Version, "3.7.1")
	setDefault(&c.MinClusterVersion, "3.0.0")
	setDefault(&c.DialTimeout, 2*time.Second)
	setDefault(&c.ReadTimeout, 5*time.Second)
	setDefault(&c.WriteTimeout, 5*time.Second)
	setDefault(&c.RetryEvery, 100*time.Millisecond)
	setDefault(&c.ProbeEvery, 4*time.Second)
	setDefault(&c.StallTimeout, 30*time.Second)
	setDefault(&c.QueueCountMax, 4096)
	setDefault(&c.QueueBytesMax, 64<<20)
	setDefault(&c.PostCountMax, 64)
	setDefault(&c.SnapshotsInMax, 2)
	setDefault(&c.RemotesUnknownMax, 32)
	setDefault(&c.Logger, slog.New(slog.DiscardHandler))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Run works until ctx ends, then stops all links, waits for them and returns
// nil. It may be called once.
func (t *Transport) Run(ctx context.Context) error {
	t.mu.Lock()
	if t.started || t.stopped {
		t.mu.Unlock()
		return ErrStopped
	}
	t.started = true
	for _, p := range t.peers {
		p.start()
	}
	t.mu.Unlock()

	t.reports.deliver(ctx, t.cfg.Receiver)

	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.stop()
	t.work.Wait()
	t.streams.CloseIdleConnections()
	t.posts.CloseIdleConnections()
	return nil
}

// enter registers work that Run has to wait for; the caller owes t.work.Done.
func (t *Transport) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.work.Add(1)
	return true
}

// Add begins to talk to a member. A member that is known already gets the new
// URLs; a remote becomes a peer.
func (t *Transport) Add(id uint64, urls []string) error {
	return t.add(id, urls, kindPeer)
}

// AddRemote makes a member reachable by posts only. One that is known already
// is left as it is.
func (t *Transport) AddRemote(id uint64, urls []string) error {
	return t.add(id, urls, kindRemote)
}

func (t *Transport) add(id uint64, urls []string, kind peerKind) error {
	if id == t.cfg.Self {
		return nil
	}
	bases, err := parseURLs(urls)
	if err != nil {
		return fmt.Errorf("add member %x: %w", id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return ErrStopped
	}
	p := t.peers[id]
	switch {
	case p == nil:
		p = newPeer(t, id, bases, kind)
		t.peers[id] = p
		if t.started {
			p.start()
		}
		t.log.Info("member added", "member", hexID(id), "kind", kind.String(), "urls", urls)
	case kind == kindPeer:
		p.urls.set(bases)
		if p.kind != kindPeer {
			p.kind = kindPeer
			if t.started {
				p.startReaders()
			}
			t.log.Info("remote became a peer", "member", hexID(id), "urls", urls)
		}
	}
	return nil
}

// callerRemembered keeps an unknown caller as a remote, so that an answer can
// reach it and either side can catch up.
func (t *Transport) callerRemembered(id uint64, urls []string) {
	if len(urls) == 0 || id == 0 || id == t.cfg.Self {
		return
	}
	t.mu.Lock()
	unknown := 0
	for _, p := range t.peers {
		if p.kind == kindCaller {
			unknown++
		}
	}
	_, known := t.peers[id]
	t.mu.Unlock()
	if known {
		return
	}
	if unknown >= t.cfg.RemotesUnknownMax {
		t.log.Warn("unknown caller not remembered: too many already", "member", hexID(id))
		return
	}
	if err := t.add(id, urls, kindCaller); err != nil {
		t.log.Warn("unknown caller not remembered", "member", hexID(id), "error", err)
	}
}

// Update gives a known member new URLs. Links that stand stay as they are until
// they break.
func (t *Transport) Update(id uint64, urls []string) error {
	bases, err := parseURLs(urls)
	if err != nil {
		return fmt.Errorf("update member %x: %w", id, err)
	}
	if p := t.peer(id); p != nil {
		p.urls.set(bases)
	}
	return nil
}

// Remove ends all links with a member. It does not wait for them.
func (t *Transport) Remove(id uint64) {
	t.mu.Lock()
	p := t.peers[id]
	delete(t.peers, id)
	t.mu.Unlock()
	if p != nil {
		p.end()
		t.log.Info("member removed", "member", hexID(id))
	}
}

// Members returns the IDs of all peers and remotes, ascending.
func (t *Transport) Members() []uint64 {
	t.mu.Lock()
	ids := make([]uint64, 0, len(t.peers))
	for id := range t.peers {
		ids = append(ids, id)
	}
	t.mu.Unlock()
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	return ids
}

func (t *Transport) peer(id uint64) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peers[id]
}

// Send queues messages, each to the member in its To field, and returns at
// once. The messages must not be changed afterwards. A MsgSnap belongs to
// SendSnapshot: here it fails.
func (t *Transport) Send(msgs []*raftpb.Message) {
	var p *peer
	for _, m := range msgs {
		to := m.GetTo()
		if to == 0 {
			continue
		}
		if m.GetType() == raftpb.MsgSnap {
			t.reports.snapshotSent(to, false)
			continue
		}
		if p == nil || p.id != to {
			p = t.peer(to)
		}
		if p != nil {
			p.send(m)
		}
	}
}

// ActiveSince returns since when we hear from a member without interruption;
// the zero time when we do not.
func (t *Transport) ActiveSince(id uint64) time.Time {
	if p := t.peer(id); p != nil {
		return p.health.since()
	}
	return time.Time{}
}

// Connected returns the members that we hear from, ascending.
func (t *Transport) Connected() []uint64 {
	var ids []uint64
	for _, id := range t.Members() {
		if !t.ActiveSince(id).IsZero() {
			ids = append(ids, id)
		}
	}
	return ids
}
