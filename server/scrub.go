package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// scrubBytesPerSecond is how fast a scrub reads: a fifth of what a slow disk can.
const scrubBytesPerSecond = 16 << 20

// alarmRetry is the pause before an alarm that nobody took is raised again.
const alarmRetry = time.Second

// damageSeen are the finds of damage that wait to be told, and the numbers of the
// scrub. A record that is damaged may be met by every reader, so each place is
// told once.
type damageSeen struct {
	news chan struct{} // there is something to tell

	mu      sync.Mutex
	waiting []error
	told    map[string]bool // by text

	finds, bytes, passes atomic.Int64
}

// damagesMax bounds the places that are told one by one.
const damagesMax = 1000

func newDamageSeen() *damageSeen {
	return &damageSeen{news: make(chan struct{}, 1), told: map[string]bool{}}
}

// add takes a find; any goroutine may call it, and it does not wait.
func (d *damageSeen) add(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if text := err.Error(); len(d.told) >= damagesMax || d.told[text] {
		return
	}
	d.told[err.Error()] = true
	d.finds.Add(1)
	d.waiting = append(d.waiting, err)
	select {
	case d.news <- struct{}{}:
	default:
	}
}

func (d *damageSeen) take() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.waiting
	d.waiting = nil
	return all
}

// runDamage tells of damage that was met, and raises the alarm CORRUPT for this
// member until the cluster has it.
func (s *Server) runDamage(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.damage.news:
		}
		for _, err := range s.damage.take() {
			s.log.Error("the data of this member is damaged and is not served; rebuild the member from the others", "damage", err.Error())
		}
		for {
			err := s.alarmCorrupt(ctx, verdict{damaged: []state.MemberID{s.self}})
			if err == nil {
				break
			}
			s.log.Warn("alarm was not raised", "error", err.Error())
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(alarmRetry):
			}
		}
	}
}

// runScrub reads log and database again at intervals.
func (s *Server) runScrub(ctx context.Context) error {
	if s.cfg.ScrubInterval == 0 {
		return nil
	}
	every(ctx, s.cfg.ScrubInterval, func(time.Time) { s.scrub(ctx) })
	return nil
}

// scrub checks everything on the disk of this member once, calmly.
func (s *Server) scrub(ctx context.Context) {
	pace := func(bytes int64) {
		s.damage.bytes.Add(bytes)
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(bytes) * time.Second / scrubBytesPerSecond):
		}
	}
	err := s.store.Scrub(ctx, func(p mvcc.ScrubProgress) { pace(p.Bytes) })
	if ctx.Err() != nil {
		return
	}
	s.scrubbed("database", err)
	err = s.disk.log.Verify(pace)
	if ctx.Err() != nil {
		return
	}
	s.scrubbed("log", err)
	s.damage.passes.Add(1)
}

func (s *Server) scrubbed(what string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, mvcc.ErrCorrupt), errors.Is(err, wal.ErrCRCMismatch):
		s.damage.add(err)
	default:
		s.log.Warn("scrub failed", "what", what, "error", err.Error())
	}
}

func (s *Server) registerScrubMetrics() {
	m := s.metrics
	m.Counter("kvorum_scrub_bytes_total", "Bytes of log and database that the scrub has checked.", func() float64 { return float64(s.damage.bytes.Load()) })
	m.Counter("kvorum_scrub_passes_total", "Scrubs that went through everything.", func() float64 { return float64(s.damage.passes.Load()) })
	m.Counter("kvorum_damage_found_total", "Damaged places found by reads or the scrub.", func() float64 { return float64(s.damage.finds.Load()) })
	m.Gauge("kvorum_disk_stalled", "1 while a write to the log has not come back for an election timeout.", func() float64 {
		if s.node.DiskStalled() {
			return 1
		}
		return 0
	})
}

// accuseTimeout bounds how long a member that cannot start tries to tell.
const accuseTimeout = 5 * time.Second

// accuse asks the running members to raise the alarm CORRUPT for this one, which
// does not start because of what it found on its disk.
func (s *Server) accuse(ctx context.Context, found error) {
	if !errors.Is(found, mvcc.ErrCorrupt) && !errors.Is(found, wal.ErrCRCMismatch) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, accuseTimeout)
	defer cancel()
	s.log.Error("the data of this member is damaged, it does not start; rebuild the member from the others", "damage", found.Error())
	if err := s.accuseItself(ctx); err != nil {
		s.log.Warn("the other members were not told of the damage", "error", err.Error())
		return
	}
	s.log.Info("the other members were asked to raise the alarm CORRUPT for this one")
}

func (s *Server) accuseItself(ctx context.Context) error {
	flags, self, err := s.cfg.initialMembers(ctx)
	if err != nil {
		return err
	}
	var urls []string
	for _, m := range flags {
		if m.Name != s.cfg.Name {
			urls = append(urls, m.PeerURLs...)
		}
	}
	if len(urls) == 0 {
		return fmt.Errorf("--initial-cluster names no other member")
	}
	running, cluster, err := fetchMembers(ctx, s.peerClient, urls)
	if err != nil {
		return err
	}
	return s.postAlarm(ctx, cluster, self, running)
}

// postAlarm proposes the alarm through the first member that takes it: a message
// as a follower sends it to its leader.
func (s *Server) postAlarm(ctx context.Context, cluster uint64, self state.Member, running []state.Member) error {
	at := slices.IndexFunc(running, func(m state.Member) bool {
		return m.Name == s.cfg.Name || slices.Equal(m.PeerURLs, self.PeerURLs)
	})
	if at < 0 {
		return fmt.Errorf("the running members do not know this one")
	}
	id := running[at].ID
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(id), Alarm: pb.AlarmType_CORRUPT}
	r := pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: newIDSource(uint64(id), time.Now()).next()}, Alarm: alarm}
	data, err := r.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode alarm: %w", err)
	}
	err = errors.New("there is no other member")
	for _, m := range running {
		if m.ID == id {
			continue
		}
		for _, u := range m.PeerURLs {
			if err = s.postProposal(ctx, u, cluster, id, m.ID, data); err == nil {
				return nil
			}
		}
	}
	return err
}

func (s *Server) postProposal(ctx context.Context, peerURL string, cluster uint64, from, to state.MemberID, data []byte) error {
	body, err := raft.EncodeProposal(raft.MemberID(from), raft.MemberID(to), data)
	if err != nil {
		return err
	}
	r, err := peerRequest(ctx, http.MethodPost, peerURL, "/raft", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header["X-Server-From"] = []string{strconv.FormatUint(uint64(from), 16)}
	r.Header["X-Server-Version"] = []string{version.API}
	r.Header["X-Etcd-Cluster-ID"] = []string{strconv.FormatUint(cluster, 16)}
	r.Header["Content-Type"] = []string{"application/protobuf"}
	answer, err := s.peerClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask member at %s: %w", peerURL, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("member at %s answered %s", peerURL, answer.Status)
	}
	return nil
}
