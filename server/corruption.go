package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
)

// ErrCorrupt: the data of this member differs from that of the others. It must
// not serve; see the text for what to do.
var ErrCorrupt = errors.New("found data inconsistency with peers")

const (
	// hashTimeout bounds the hashing of a whole database by another member.
	hashTimeout = time.Minute
	// hashRetry is the pause before a member that did not answer is asked again.
	hashRetry = 100 * time.Millisecond
	// clusterAlarm is the member of an alarm that concerns all.
	clusterAlarm = state.MemberID(0)
)

// Answers of a member that cannot hash up to the revision: nothing is known of
// its data.
var (
	errHashCompacted = errors.New("the member has compacted the revision")
	errHashFuture    = errors.New("the member has not reached the revision")
)

// hashBody is the answer of /members/hashkv.
type hashBody struct {
	Header struct {
		Revision int64 `json:"revision,omitempty"`
	} `json:"header"`
	Hash            uint32 `json:"hash,omitempty"`
	CompactRevision int64  `json:"compact_revision,omitempty"`
	HashRevision    int64  `json:"hash_revision,omitempty"`
}

// askHash asks a member for the hash of its history up to a revision.
func (s *Server) askHash(ctx context.Context, peerURL string, rev mvcc.Revision) (mvcc.HashKV, error) {
	ask := fmt.Appendf(nil, `{"revision":%d}`, rev)
	r, err := peerRequest(ctx, http.MethodGet, peerURL, "/members/hashkv", bytes.NewReader(ask))
	if err != nil {
		return mvcc.HashKV{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Etcd-Cluster-ID", strconv.FormatUint(s.cluster, 16))
	answer, err := s.peerClient.Do(r)
	if err != nil {
		return mvcc.HashKV{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, peerBodyBytesMax))
	if err != nil {
		return mvcc.HashKV{}, err
	}
	if answer.StatusCode != http.StatusOK {
		return mvcc.HashKV{}, hashRefusal(answer.Status, string(bytes.TrimSpace(text)))
	}
	var body hashBody
	if err := json.Unmarshal(text, &body); err != nil {
		return mvcc.HashKV{}, fmt.Errorf("read hash: %w", err)
	}
	return mvcc.HashKV{
		Hash: body.Hash, CompactRevision: mvcc.Revision(body.CompactRevision),
		HashRevision: mvcc.Revision(body.HashRevision), Revision: mvcc.Revision(body.Header.Revision),
	}, nil
}

func hashRefusal(status, text string) error {
	switch {
	case strings.Contains(text, mvcc.ErrCompacted.Error()):
		return errHashCompacted
	case strings.Contains(text, mvcc.ErrFutureRevision.Error()):
		return errHashFuture
	}
	return fmt.Errorf("%s: %s", status, text)
}

// askHashes asks members for their hashes, all at once. Who has not answered
// comes back in missing with why.
func (s *Server) askHashes(ctx context.Context, members []state.Member, rev mvcc.Revision) (answers []hashAnswer, missing map[state.MemberID]error) {
	ctx, cancel := context.WithTimeout(ctx, hashTimeout)
	defer cancel()
	var group sync.WaitGroup
	var mu sync.Mutex // guards the results
	missing = map[state.MemberID]error{}
	for _, m := range members {
		group.Go(func() {
			h, err := s.askMember(ctx, m, rev)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				missing[m.ID] = err
				return
			}
			answers = append(answers, hashAnswer{m.ID, h})
		})
	}
	group.Wait()
	return answers, missing
}

// askMember asks at the member's URLs, one after the other.
func (s *Server) askMember(ctx context.Context, m state.Member, rev mvcc.Revision) (h mvcc.HashKV, err error) {
	err = fmt.Errorf("member has no peer URL")
	for _, u := range m.PeerURLs {
		h, err = s.askHash(ctx, u, rev)
		if err == nil || errors.Is(err, errHashCompacted) || errors.Is(err, errHashFuture) {
			return h, err
		}
	}
	return h, err
}

// others are the other members that have joined the cluster.
func (s *Server) others() []state.Member {
	return slices.DeleteFunc(s.machine.Members(), func(m state.Member) bool { return m.ID == s.self })
}

// runCorruptCheck compares, on the leader, the data of all members at intervals.
func (s *Server) runCorruptCheck(ctx context.Context) error {
	if s.cfg.CorruptCheckTime == 0 {
		return nil
	}
	every(ctx, s.cfg.CorruptCheckTime, func(time.Time) {
		if !s.leading() {
			return
		}
		if err := s.compareMembers(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("corruption check failed", "error", err.Error())
		}
	})
	return nil
}

// compareMembers compares all members at the newest revision. Who has not reached
// it may be late, or may have lost a part of its history: all are compared again
// at the newest revision that it has.
func (s *Server) compareMembers(ctx context.Context) error {
	if err := s.ReadBarrier(ctx); err != nil {
		return err
	}
	own, err := s.store.HashKV(0)
	if err != nil {
		return fmt.Errorf("hash own data: %w", err)
	}
	c, err := s.compareAt(ctx, own)
	if err != nil || len(c.late) == 0 {
		return err
	}
	rev := s.newestOf(ctx, c.late)
	if rev == 0 || rev >= own.HashRevision {
		return nil // it has gone, or has caught up
	}
	if own, err = s.store.HashKV(rev); err != nil {
		return fmt.Errorf("hash own data at revision %d of a late member: %w", rev, err)
	}
	_, err = s.compareAt(ctx, own)
	return err
}

// newestOf is the lowest newest revision of members, 0 if none answers.
func (s *Server) newestOf(ctx context.Context, members []state.Member) (lowest mvcc.Revision) {
	const newest = 0
	answers, _ := s.askHashes(ctx, members, newest)
	for _, a := range answers {
		if lowest == 0 || a.hash.HashRevision < lowest {
			lowest = a.hash.HashRevision
		}
	}
	return lowest
}

// comparison is how much of the cluster one covered.
type comparison struct {
	answered bool           // every other member
	complete bool           // and with hashes that can be compared
	late     []state.Member // have not reached the revision
}

// compareAt compares the other members with this one's hash and raises the alarm
// for those who differ.
func (s *Server) compareAt(ctx context.Context, own mvcc.HashKV) (comparison, error) {
	others := s.others()
	answers, missing := s.askHashes(ctx, others, own.HashRevision)
	c := comparison{answered: len(missing) == 0}
	for _, m := range others {
		switch err := missing[m.ID]; {
		case errors.Is(err, errHashFuture):
			c.late = append(c.late, m)
		case err != nil:
			s.log.Warn("member not compared", "member", fmt.Sprintf("%x", uint64(m.ID)), "revision", int64(own.HashRevision), "error", err.Error())
		}
	}
	c.complete = c.answered && !slices.ContainsFunc(answers, func(a hashAnswer) bool {
		return a.hash.CompactRevision != own.CompactRevision
	})
	answers = append(answers, hashAnswer{s.self, own})
	v := judge(len(others)+1, answers)
	if len(v.damaged) == 0 && !v.undecided {
		return c, nil
	}
	s.log.Error("members differ", "hashes", hashTexts(answers), "revision", int64(own.HashRevision), "damaged", hexIDs(v.damaged))
	return c, s.alarmCorrupt(ctx, v)
}

// alarmCorrupt raises the alarm for every damaged member, or for the cluster if
// nobody can say which is.
func (s *Server) alarmCorrupt(ctx context.Context, v verdict) error {
	ids := v.damaged
	if v.undecided {
		ids = append(ids, clusterAlarm)
	}
	active := s.machine.Alarms(pb.AlarmType_CORRUPT)
	for _, id := range ids {
		if slices.ContainsFunc(active, func(a *pb.AlarmMember) bool { return a.MemberID == uint64(id) }) {
			continue
		}
		alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(id), Alarm: pb.AlarmType_CORRUPT}
		if err := s.proposeInternal(ctx, &pb.InternalRaftRequest{Alarm: alarm}); err != nil {
			return fmt.Errorf("raise alarm CORRUPT for member %x: %w", uint64(id), err)
		}
	}
	return nil
}

// runCompactHashCheck compares, on the leader, what all members remember of past
// compactions. Unlike runCorruptCheck it costs no reading of the data.
func (s *Server) runCompactHashCheck(ctx context.Context) error {
	if !s.cfg.enabled(FeatureCompactHashCheck) {
		return nil
	}
	var past pastHashes
	every(ctx, s.cfg.CompactHashCheckTime, func(time.Time) {
		if s.leading() {
			s.compareCompactions(ctx, &past)
		}
	})
	return nil
}

// pastHashes are the compactions that need not be compared again.
type pastHashes struct {
	settled mvcc.Revision // up to here
	seen    mvcc.Revision // the newest one of the last look
}

// compareCompactions goes from the newest compaction back to one on which all
// members could be compared. A member that has answered twice without what it
// remembers of a compaction has forgotten it, by a restart, and is not asked a
// third time.
func (s *Server) compareCompactions(ctx context.Context, past *pastHashes) {
	hashes := s.store.CompactionHashes()
	if len(hashes) == 0 {
		return
	}
	answered := true
	settled := past.settled
	for _, own := range slices.Backward(hashes) {
		if own.HashRevision <= past.settled {
			break
		}
		c, err := s.compareAt(ctx, own)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("compact hash check failed", "revision", int64(own.HashRevision), "error", err.Error())
		}
		answered = answered && c.answered && err == nil
		if c.complete && err == nil {
			settled = max(settled, own.HashRevision)
			break
		}
	}
	if answered {
		settled = max(settled, past.seen)
	}
	past.settled, past.seen = settled, hashes[len(hashes)-1].HashRevision
}

// startGate keeps the other members out until this one has checked its data;
// they may only ask what that check needs.
type startGate struct{ open atomic.Bool }

func (g *startGate) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.open.Load() || r.URL.Path == "/members/hashkv" {
			h.ServeHTTP(w, r)
			return
		}
		http.Error(w, "the member is checking its data and does not serve yet", http.StatusServiceUnavailable)
	})
}

// checkAtStart compares this member's data with that of the others before it
// serves anything. It fails when most members have other data, or, while most
// cannot be asked, when any has. Members that do not answer within the timeout of
// a request are left out.
func (s *Server) checkAtStart(ctx context.Context) error {
	others := s.others()
	own, err := s.store.HashKV(0)
	if err != nil {
		return fmt.Errorf("initial corruption check: hash own data: %w", err)
	}
	s.log.Info("starting initial corruption check", "member", fmt.Sprintf("%x", uint64(s.self)), "revision", int64(own.HashRevision), "timeout", s.cfg.requestTimeout())
	deadline := time.Now().Add(s.cfg.requestTimeout())
	answers, asked := []hashAnswer{{s.self, own}}, others
	for {
		got, missing := s.askHashes(ctx, asked, own.HashRevision)
		answers = append(answers, got...)
		v := judge(len(others)+1, answers)
		asked = slices.DeleteFunc(asked, func(m state.Member) bool {
			err := missing[m.ID]
			return err == nil || errors.Is(err, errHashCompacted) || errors.Is(err, errHashFuture)
		})
		if err := ctx.Err(); err != nil {
			return err
		}
		settled := len(v.agreed) > 0 || len(asked) == 0
		if settled || time.Now().After(deadline) {
			s.tellMissing(missing)
			return s.startVerdict(v, answers)
		}
		select {
		case <-time.After(hashRetry):
		case <-ctx.Done():
		}
	}
}

func (s *Server) tellMissing(missing map[state.MemberID]error) {
	for id, err := range missing {
		s.log.Warn("failed to compare with member", "member", fmt.Sprintf("%x", uint64(id)), "error", err.Error())
	}
}

// startVerdict says whether this member may serve.
func (s *Server) startVerdict(v verdict, answers []hashAnswer) error {
	own, texts, agrees := answers[0].hash, hashTexts(answers), slices.Contains(v.agreed, s.self)
	self := fmt.Sprintf("%x", uint64(s.self))
	if slices.Contains(v.damaged, s.self) || v.undecided && !agrees {
		advice := "its data is damaged: remove the member, delete its data-dir and add it again"
		if v.undecided {
			advice = "not enough members answer to tell which is right: start the others, or restore all from a snapshot"
		}
		return fmt.Errorf("member %s %w: at revision %d, compacted to %d, the hashes are %s; %s",
			self, ErrCorrupt, own.HashRevision, own.CompactRevision, strings.Join(texts, ", "), advice)
	}
	if len(v.damaged) > 0 {
		s.log.Error("other members differ from the majority", "damaged", hexIDs(v.damaged), "hashes", texts)
	}
	if !agrees {
		s.log.Warn("initial corruption check: too few members could be compared to be sure", "member", self, "revision", int64(own.HashRevision), "hashes", texts)
		return nil
	}
	s.log.Info("initial corruption check passed; no corruption", "member", self, "revision", int64(own.HashRevision), "hashes", texts)
	return nil
}

func hashTexts(answers []hashAnswer) []string {
	var out []string
	for _, a := range answers {
		out = append(out, fmt.Sprintf("%x=%08x/%d", uint64(a.member), a.hash.Hash, a.hash.CompactRevision))
	}
	slices.Sort(out)
	return out
}

func hexIDs(ids []state.MemberID) []string {
	var out []string
	for _, id := range ids {
		out = append(out, fmt.Sprintf("%x", uint64(id)))
	}
	return out
}
