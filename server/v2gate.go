package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

const (
	// kvorumPath on the peer URLs says that a member is Kvorum; etcd has no such path.
	kvorumPath = "/kvorum"
	// gateFresh is how long the last word on v2 commands stands.
	gateFresh = 4 * time.Second
	gateAsk   = time.Second
)

// errNotKvorum: v2 commands would stop an etcd member. Replace it by Kvorum, or
// remove it.
var errNotKvorum = errors.New("v2 writes need every member to be Kvorum")

// v2Gate holds v2 commands back while a member may be there that does not
// understand them, such as etcd in a cluster that is being moved.
type v2Gate struct {
	word   atomic.Pointer[gateWord] // the last one
	asking atomic.Bool              // somebody asks beside the requests

	mu    sync.Mutex              // held by whoever asks the members
	known map[state.MemberID]bool // guarded by mu: what a member has last said
}

// gateWord is what the members came to, for one configuration of them.
type gateWord struct {
	conf  uint64
	until time.Time
	err   error
}

// CheckV2 implements v2http.Member. A member that has said to be Kvorum is so
// until it says otherwise: one that is down holds nothing up. One that has never
// been heard does, unless the store has v2 keys, since all were Kvorum when they
// came. The last word of one that is down counts, also when it was no.
func (m v2Member) CheckV2(ctx context.Context) error {
	if d := m.machine.Downgrade(); d.Enabled {
		return fmt.Errorf("%w; the cluster is being downgraded to %s", errNotKvorum, d.TargetVersion)
	}
	g, conf := &m.v2gate, m.confIndex.Load()
	word := g.word.Load()
	switch {
	case word.fresh(conf):
		return word.err
	case word != nil && word.conf == conf && word.err == nil:
		// All were Kvorum a moment ago; nobody has to wait to hear it again.
		if g.asking.CompareAndSwap(false, true) {
			m.background.Go(func() {
				defer g.asking.Store(false)
				g.mu.Lock()
				defer g.mu.Unlock()
				_ = m.ask(m.ctx, conf) // noted
			})
		}
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if word := g.word.Load(); word.fresh(conf) {
		return word.err // somebody has asked meanwhile
	}
	return m.ask(ctx, conf)
}

// fresh reports whether the word still stands for a configuration.
func (w *gateWord) fresh(conf uint64) bool {
	return w != nil && w.conf == conf && time.Now().Before(w.until)
}

// ask asks the other members and notes what it comes to; v2gate.mu is held.
func (m v2Member) ask(ctx context.Context, conf uint64) error {
	members := m.machine.Members()
	m.hear(ctx, members)
	err := m.judge(members)
	if ctx.Err() == nil {
		m.v2gate.word.Store(&gateWord{conf, time.Now().Add(gateFresh), err})
	}
	return err
}

// hear asks every other member at once whether it is Kvorum; v2gate.mu is held.
func (m v2Member) hear(ctx context.Context, members []state.Member) {
	ctx, cancel := context.WithTimeout(ctx, gateAsk)
	defer cancel()
	var asking sync.WaitGroup
	said := make([]func(), len(members))
	for i, other := range members {
		if other.ID == m.self {
			continue
		}
		asking.Go(func() {
			if kvorum, answered := m.isKvorum(ctx, other.PeerURLs); answered {
				said[i] = func() { m.v2gate.known[other.ID] = kvorum }
			}
		})
	}
	asking.Wait()
	for _, note := range said {
		if note != nil {
			note()
		}
	}
}

// judge gives the error that stands in the way of v2 commands.
func (m v2Member) judge(members []state.Member) error {
	for _, other := range members {
		kvorum, heard := m.v2gate.known[other.ID]
		switch {
		case other.ID == m.self || kvorum:
		case heard:
			return fmt.Errorf("%w; member %x (%s) is not", errNotKvorum, uint64(other.ID), other.Name)
		case !m.v2Used():
			return fmt.Errorf("%w; member %x (%s) has not been heard yet", errNotKvorum, uint64(other.ID), other.Name)
		}
	}
	return nil
}

func (m v2Member) v2Used() bool {
	used, _ := mvcc.Look(m.store, func(p mvcc.Picture) (bool, error) { return v2keys.Used(p), nil })
	return used
}

// isKvorum asks a member by its peer URLs.
func (m v2Member) isKvorum(ctx context.Context, peerURLs []string) (kvorum, answered bool) {
	for _, u := range peerURLs {
		r, err := peerRequest(ctx, http.MethodGet, u, kvorumPath, nil)
		if err != nil {
			continue
		}
		answer, err := m.peerClient.Do(r)
		if err != nil {
			continue
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK, true
	}
	return false, false
}

func (s *Server) serveKvorum(w http.ResponseWriter, _ *http.Request) {
	s.clusterHeader(w)
	writeJSON(w, struct {
		Version string `json:"kvorum"`
	}{version.Kvorum})
}
