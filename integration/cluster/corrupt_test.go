package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// database is the database file of a member, and recordKey the key in it of the
// change that a put made.
func database(m *process.Member) string { return filepath.Join(m.Dir, "member", "snap", "db") }

func recordKey(rev int64) []byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(rev))
	return binary.BigEndian.AppendUint64(append(key, '_'), 0)
}

// falsify changes the value that a stopped member's database has at a revision.
func falsify(t *testing.T, m *process.Member, rev int64, from, to string) {
	t.Helper()
	key := recordKey(rev)
	err := mvcc.Edit(database(m), func(e *mvcc.Editor) error {
		record := bytes.Clone(e.Get(mvcc.BucketKey, key))
		if !bytes.Contains(record, []byte(from)) {
			return fmt.Errorf("the record %q does not hold %q", record, from)
		}
		return e.Set(mvcc.BucketKey, key, bytes.Replace(record, []byte(from), []byte(to), 1))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// stopDamaged stops a member cleanly, so that its database holds all, and
// damages it.
func (e *env) stopDamaged(m *process.Member, rev int64) {
	e.t.Helper()
	e.stopWith(m, rev)
	falsify(e.t, m, rev, "right", "wrong")
}

// stopWith stops a member once it has the revision: a write that the others have
// acknowledged may not have been applied here yet.
func (e *env) stopWith(m *process.Member, rev int64) {
	e.t.Helper()
	until(e.t, fmt.Sprintf("revision %d at %s", rev, m.Name), waitMax, func() error {
		s, err := e.status(m)
		if err == nil && s.Header.Revision < rev {
			err = fmt.Errorf("it is at revision %d", s.Header.Revision)
		}
		return err
	})
	if !m.Terminate() {
		e.t.Fatalf("%s did not stop", m.Name)
	}
}

// accused waits until the members with an active CORRUPT alarm are exactly those.
func (e *env) accused(ids ...uint64) {
	e.t.Helper()
	until(e.t, fmt.Sprintf("CORRUPT for %x", ids), waitMax, func() error {
		ctx, cancel := e.brief(5 * time.Second)
		defer cancel()
		r, err := e.client.Alarms(ctx)
		if err != nil {
			return err
		}
		var got []uint64
		for _, a := range r.Alarms {
			if a.Alarm == pb.AlarmType_CORRUPT {
				got = append(got, a.MemberID)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(ids) {
			return fmt.Errorf("alarms for %x", got)
		}
		return nil
	})
}

// refusesWrites checks what an alarm is for.
func (e *env) refusesWrites() {
	e.t.Helper()
	ctx, cancel := e.brief(10 * time.Second)
	defer cancel()
	if _, err := e.client.Put(ctx, "another", "x"); err == nil || !strings.Contains(err.Error(), "etcdserver: corrupt cluster") {
		e.t.Errorf("put under the alarm: %v", err)
	}
	if _, err := e.client.Get(ctx, "key"); err != nil {
		e.t.Errorf("read under the alarm: %v", err)
	}
}

// If this fails, a member with other data than the rest serves it for ever, or
// the wrong member is blamed and thrown away, be the damaged one leader or not.
func TestDamagedMemberIsFound(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader=%t", leads), func(t *testing.T) {
			t.Parallel()
			e := start(t, process.Options{Size: 3, Args: []string{"--corrupt-check-time", "300ms"}})
			rev := e.mustPut("key", "right")
			e.mustPut("other", "right")
			_, followers := e.followers()
			bad := followers[0]
			id := e.idOf(bad.Name)
			e.stopDamaged(bad, rev)
			e.mustStart(bad)
			if leads {
				_, _ = e.at(e.leader()).Maintenance.MoveLeader(e.ctx, &pb.MoveLeaderRequest{TargetID: id})
			}
			e.accused(id)
			e.refusesWrites()
			disarm := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: id, Alarm: pb.AlarmType_CORRUPT}
			if _, err := e.client.Maintenance.Alarm(e.ctx, disarm); err != nil {
				t.Fatal(err)
			}
			e.accused(id) // it is still damaged
		})
	}
}

// If this fails, a member that has lost its newest write answers with the
// revisions of other writes for ever.
func TestMemberWithLostWriteIsFound(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3, Args: []string{"--corrupt-check-time", "300ms"}})
	e.mustPut("key", "kept")
	rev := e.mustPut("key", "lost")
	_, followers := e.followers()
	bad := followers[0]
	id := e.idOf(bad.Name)
	e.stopWith(bad, rev)
	if err := mvcc.Edit(database(bad), func(e *mvcc.Editor) error { return e.Delete(mvcc.BucketKey, recordKey(rev)) }); err != nil {
		t.Fatal(err)
	}
	e.mustStart(bad)
	e.mustPut("key", "next")
	e.accused(id)
}

// If this fails, two members that differ go on as if nothing were, since neither
// has a majority.
func TestDifferenceOfTwoMembersIsFound(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 2, Args: []string{"--corrupt-check-time", "300ms"}})
	rev := e.mustPut("key", "right")
	e.stopDamaged(e.Members[0], rev)
	e.mustStart(e.Members[0])
	e.accused(0)
	e.refusesWrites()
}

// If this fails, a damaged member is not found although all members remember
// what they had at a compaction.
func TestDamagedMemberIsFoundByCompaction(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3, Args: []string{"--feature-gates", "CompactHashCheck=true", "--compact-hash-check-time", "300ms"}})
	rev := e.mustPut("key", "right")
	e.mustPut("other", "right")
	_, followers := e.followers()
	bad := followers[0]
	id := e.idOf(bad.Name)
	e.stopDamaged(bad, rev)
	e.mustStart(bad)
	e.accused() // nothing was compacted
	last := e.mustPut("third", "right")
	if _, err := e.client.Compact(e.ctx, last, true); err != nil {
		t.Fatal(err)
	}
	e.accused(id)
	e.refusesWrites()
}

// If this fails, a damaged member joins in after a restart, or two sound ones do
// not start because of it.
func TestDamagedMemberDoesNotStart(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3, Args: []string{"--feature-gates", "InitialCorruptCheck=true"}})
	rev := e.mustPut("key", "right")
	e.mustPut("other", "right")
	bad := e.Members[1]
	e.stopDamaged(bad, rev)
	refuses := func() {
		t.Helper()
		e.waitExit(bad)
		if code := bad.Ended().ExitCode(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		e.waitSays(bad, 0, "found data inconsistency with peers")
	}
	if err := bad.Launch(); err != nil {
		t.Fatal(err)
	}
	refuses()
	// All at once, nobody serves yet: they still compare.
	for _, m := range []*process.Member{e.Members[0], e.Members[2]} {
		m.Terminate()
	}
	if err := bad.Launch(); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*process.Member{e.Members[0], e.Members[2]} {
		if err := m.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []*process.Member{e.Members[0], e.Members[2]} {
		if err := m.WaitReady(); err != nil {
			t.Fatal(err)
		}
	}
	refuses()
	e.avoid(bad)
	e.serves(e.client)
}

// If this fails, the checks accuse members that are sound, in the middle of
// writes and compactions, and the cluster refuses writes for nothing.
func TestSoundMembersAreNotAccused(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3, Args: []string{
		"--corrupt-check-time", "50ms", "--feature-gates", "CompactHashCheck=true,InitialCorruptCheck=true", "--compact-hash-check-time", "70ms",
	}})
	j := e.load(newRand(t), "sound/", 4, 100)
	deadline := time.Now().Add(lasting(4*time.Second, time.Minute))
	for time.Now().Before(deadline) {
		j.progress(50)
		rev := e.mustPut("sound", "yes")
		if _, err := e.client.Compact(e.ctx, rev-20, false); err != nil && !errors.Is(err, e.ctx.Err()) {
			t.Fatal(err)
		}
	}
	follower := e.Members[2]
	follower.Terminate()
	e.mustStart(follower)
	j.progress(50)
	j.finish()
	e.accused()
	e.checkEqual()
}
