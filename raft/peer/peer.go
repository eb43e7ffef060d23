package peer

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

type peerKind int

const (
	kindPeer   peerKind = iota // a member: streams and posts
	kindRemote                 // known by bootstrap: posts
	kindCaller                 // called us before we knew it: posts
)

func (k peerKind) String() string {
	return [...]string{"peer", "remote", "caller"}[k]
}

// peer is everything between us and one other member.
type peer struct {
	id   uint64
	t    *Transport
	kind peerKind // guarded by t.mu
	urls urlList
	ctx  context.Context // ends the links of this peer
	end  context.CancelFunc

	out     [streamKinds]*queue // what goes to streams that the peer dialed
	posts   *queue              // what has no stream
	poster  *session            // the only holder of posts
	sending atomic.Bool         // a snapshot is under way
	health  health
	count   counters
}

func newPeer(t *Transport, id uint64, bases []base, kind peerKind) *peer {
	ctx, cancel := context.WithCancel(t.ctx)
	p := &peer{id: id, t: t, kind: kind, ctx: ctx,
		posts: newQueue(t.cfg.PostCountMax, t.cfg.QueueBytesMax)}
	for k := range p.out {
		p.out[k] = newQueue(t.cfg.QueueCountMax, t.cfg.QueueBytesMax)
	}
	p.poster = p.posts.open() // what is sent before start waits
	p.urls.set(bases)
	p.end = func() {
		cancel()
		for _, q := range p.out {
			q.expel()
		}
	}
	return p
}

// start begins the links; t.mu is held.
func (p *peer) start() {
	p.t.work.Go(p.post)
	if p.kind == kindPeer {
		p.startReaders()
	}
}

// startReaders dials the streams; t.mu is held.
func (p *peer) startReaders() {
	for kind := range streamKinds {
		p.t.work.Go(func() { p.read(kind) })
	}
}

// send queues one message on the best link that is up.
func (p *peer) send(m *raftpb.Message) {
	if m.GetType() == raftpb.MsgApp && p.offer(p.out[streamMsgApp], m) {
		return
	}
	if p.offer(p.out[streamMessage], m) {
		return
	}
	p.offer(p.posts, m)
}

// offer reports whether the link took care of the message, be it by dropping it.
func (p *peer) offer(q *queue, m *raftpb.Message) bool {
	switch q.put(m) {
	case putClosed:
		return false
	case putDropped:
		p.count.sendFailures.Add(1)
	case putDroppedNew:
		p.t.log.Warn("queue full: messages are dropped", "member", hexID(p.id), "type", m.GetType().String())
		p.lost(1)
	}
	return true
}

// lost counts n messages that will not arrive and tells the owner.
func (p *peer) lost(n int) {
	p.count.sendFailures.Add(uint64(n))
	p.t.reports.isUnreachable(p.id)
}

// health is whether we hear from a member: while a stream that we dialed
// stands, or since a post or probe was answered, until one fails.
type health struct {
	mu           sync.Mutex // guards what follows
	streams      int
	answered     bool
	activeSince  time.Time
	disconnected uint64 // transitions from active to not
}

// streamUp and streamDown come in pairs. Each returns true when it changed
// whether the member is active.
func (h *health) streamUp() bool   { return h.change(func() { h.streams++ }) }
func (h *health) streamDown() bool { return h.change(func() { h.streams--; h.answered = false }) }

// posted notes the outcome of a post or probe.
func (h *health) posted(ok bool) bool { return h.change(func() { h.answered = ok }) }

func (h *health) change(do func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
	active, was := h.streams > 0 || h.answered, !h.activeSince.IsZero()
	switch {
	case active && !was:
		h.activeSince = time.Now()
	case !active && was:
		h.activeSince = time.Time{}
		h.disconnected++
	}
	return active != was
}

func (h *health) since() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.activeSince
}

// logChange logs that the member became active or not.
func (p *peer) logChange(changed bool, cause error) {
	switch {
	case !changed || p.ctx.Err() != nil:
	case p.health.since().IsZero():
		p.t.log.Warn("member became inactive", "member", hexID(p.id), "error", cause)
	default:
		p.t.log.Info("member became active", "member", hexID(p.id))
	}
}

// hexID is an ID as it stands in paths, headers and logs.
func hexID(id uint64) string { return strconv.FormatUint(id, 16) }
