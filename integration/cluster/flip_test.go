package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// flipIn changes a bit in each copy of a text in a file, as soon as nobody writes to
// it: pages that were replaced hold old copies, and are used again.
func flipIn(t *testing.T, path, text string) {
	t.Helper()
	var before []byte
	until(t, "nobody writes to "+path, waitMax, func() error {
		data, err := os.ReadFile(path)
		check(t, err)
		if !bytes.Equal(data, before) {
			before = data
			pass(t, 300*time.Millisecond)
			return errors.New("it changes")
		}
		return nil
	})
	found := 0
	for at := 0; ; {
		next := bytes.Index(before[at:], []byte(text))
		if next < 0 {
			break
		}
		at += next
		flipByte(t, path, int64(at)+3)
		at += len(text)
		found++
	}
	if found == 0 {
		t.Fatalf("%s does not hold %q", path, text)
	}
}

// markOf is a value that is found in a file.
const markOf = "a value that no other key has"

// If this fails, a bit that flips on the disk of a member is served to clients,
// or nobody is told which member, file and key it was, or the member cannot be
// rebuilt from the others.
func TestFlippedBit(t *testing.T) {
	for _, c := range []struct {
		name   string
		file   func(m *process.Member) string
		onDisk bool // it happens while the member is down
		says   string
	}{
		{name: "database-at-start", file: database, onDisk: true, says: `key \"flipped\"`},
		{name: "database-scrub", file: database, says: `key \"flipped\"`},
		{name: "log-at-start", file: func(m *process.Member) string { return lastSegment(t, m.Dir) }, onDisk: true, says: "in file"},
		{name: "log-scrub", file: func(m *process.Member) string { return lastSegment(t, m.Dir) }, says: "in file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := start(t, process.Options{Size: 3, Args: []string{"--scrub-interval", "1s"}})
			e.mustPut("flipped", markOf)
			for i := range 20 {
				e.mustPut(fmt.Sprint("more", i), "x")
			}
			_, rest := e.followers()
			bad := rest[0]
			id := e.idOf(bad.Name)
			if !bad.Terminate() {
				t.Fatal("it did not stop")
			}
			if !c.onDisk {
				e.mustStart(bad)
			}
			from := mark(bad)
			path := c.file(bad)
			flipIn(t, path, markOf)
			if c.onDisk {
				if err := bad.Start(); err == nil {
					t.Error("it starts")
				}
			}
			e.accused(id)
			if !says(bad, from, c.says) || !says(bad, from, path) {
				t.Errorf("it does not say %q and the file:\n%s", c.says, bad.LogTail(10))
			}
			e.servesNoDamage(bad)
			e.rebuild(bad, id)
		})
	}
}

// servesNoDamage asks a member for the key: it says what was written or nothing.
func (e *env) servesNoDamage(m *process.Member) {
	e.t.Helper()
	if m.PID() == 0 {
		return
	}
	ctx, cancel := e.brief(requestMax)
	defer cancel()
	a, err := e.at(m).Get(ctx, "flipped")
	if err == nil && (len(a.Kvs) != 1 || string(a.Kvs[0].Value) != markOf) {
		e.t.Errorf("it serves %v", a.Kvs)
	}
	if err != nil && !strings.Contains(err.Error(), "etcdserver: corrupt cluster") {
		e.t.Errorf("read of the damaged key: %v", err)
	}
}

// rebuild puts a fresh member with the data of the others in the place of a
// damaged one, and takes the alarm back.
func (e *env) rebuild(m *process.Member, id uint64) {
	e.t.Helper()
	e.avoid(m)
	m.Kill()
	e.remove(id)
	disarm := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: id, Alarm: pb.AlarmType_CORRUPT}
	_, err := e.client.Maintenance.Alarm(e.ctx, disarm)
	check(e.t, err)
	e.drop(m)
	e.addAndStart("fresh", false)
	e.accused()
	e.avoid()
	e.mustPut("serves", "again")
	e.caughtUp(e.Members)
	e.checkEqual()
}
