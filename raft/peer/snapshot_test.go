package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func snapTo(from, to, index uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: &from, To: &to, Term: proto.Uint64(4),
		Snapshot: &raftpb.Snapshot{Data: []byte("{}"), Metadata: &raftpb.SnapshotMetadata{
			Index: &index, Term: proto.Uint64(3), ConfState: &raftpb.ConfState{Voters: []uint64{from, to}}}}}
}

// source is a database that is being sent.
type source struct {
	io.Reader
	closed atomic.Int32
}

func (s *source) Close() error { s.closed.Add(1); return nil }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A follower that is far behind gets its whole state this way; one wrong byte
// would make it differ for ever.
func TestSnapshotOf50MB(t *testing.T) {
	saves := make(saveObserver, 1)
	a, b := serve(t, 1, nil), serve(t, 2, func(c *Config) { c.Observer = saves })
	join(t, a, b)
	db := randomBytes(50 << 20)
	src := &source{Reader: bytes.NewReader(db)}
	msg := snapTo(1, 2, 0x1234)
	a.SendSnapshot(msg, src, int64(len(db)))
	if !next(t, a.sent, "outcome") {
		t.Fatal("failed")
	}
	got := next(t, b.snapshots, "snapshot")
	same(t, got.msg, msg)
	if want := filepath.Join(b.cfg.SnapDir, "0000000000001234.snap.db"); got.path != want {
		t.Errorf("path %s, want %s", got.path, want)
	}
	stored, err := os.ReadFile(got.path)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(stored) != sha256.Sum256(db) {
		t.Error("the stored database differs")
	}
	if info, err := os.Stat(got.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v, want 0600", info.Mode(), err)
	}
	eventually(t, "the source is closed once", func() bool { return src.closed.Load() == 1 })
	if s := a.Stats()[0]; s.SnapshotsSent != 1 || s.SnapshotsSending != 0 || s.SentBytes < 50<<20 {
		t.Errorf("%+v", s)
	}
	if times := next(t, saves, "times"); times.total <= times.sync || times.sync <= 0 {
		t.Errorf("saving took %v, its sync %v", times.total, times.sync)
	}
	if s := b.Stats()[0]; s.SnapshotsReceived != 1 || s.SnapshotsBeingReceived != 0 || s.ReceivedBytes < 50<<20 {
		t.Errorf("%+v", s)
	}
}

// Half a database that looks like a whole one would be started from.
func TestSnapshotCutInTheMiddle(t *testing.T) {
	half := randomBytes(3 << 20)
	cuts := map[string]io.Reader{
		"the source fails":     io.MultiReader(bytes.NewReader(half), failingReader{}),
		"the source ends":      bytes.NewReader(half),
		"the source goes on":   io.MultiReader(bytes.NewReader(half), bytes.NewReader(half), bytes.NewReader(half)),
		"the source is broken": failingReader{},
	}
	for name, r := range cuts {
		t.Run(name, func(t *testing.T) {
			a, b := serve(t, 1, nil), serve(t, 2, nil)
			join(t, a, b)
			src := &source{Reader: r}
			a.SendSnapshot(snapTo(1, 2, 7), src, 5<<20)
			if next(t, a.sent, "outcome") {
				t.Error("told to be sent")
			}
			if id := next(t, a.unreachable, "unreachable"); id != 2 {
				t.Errorf("%x is unreachable", id)
			}
			a.stop()
			b.stop() // waits for the receiving request
			if got := files(t, b.cfg.SnapDir); len(got) != 0 {
				t.Errorf("left behind: %v", got)
			}
			if len(b.snapshots) != 0 {
				t.Error("half a snapshot was handed over")
			}
			if src.closed.Load() != 1 {
				t.Errorf("the source was closed %d times", src.closed.Load())
			}
		})
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("disk failed") }

// A leader that never hears the outcome never sends to that follower again.
func TestSnapshotOutcomeIsAlwaysTold(t *testing.T) {
	a, b := serve(t, 1, nil), serve(t, 2, nil)
	join(t, a, b)

	src := &source{Reader: strings.NewReader("x")}
	a.SendSnapshot(snapTo(1, 5, 7), src, 1)
	if next(t, a.sent, "outcome for an unknown member") || src.closed.Load() != 1 {
		t.Error("unknown member: want a failure, and the source closed")
	}

	a.Send([]*raftpb.Message{snapTo(1, 2, 7)})
	if next(t, a.sent, "outcome of a MsgSnap without a database") {
		t.Error("a MsgSnap in Send: want a failure")
	}

	slow, feed := io.Pipe()
	a.SendSnapshot(snapTo(1, 2, 7), slow, 2)
	second := &source{Reader: strings.NewReader("x")}
	a.SendSnapshot(snapTo(1, 2, 8), second, 1)
	if next(t, a.sent, "outcome of a second snapshot") || second.closed.Load() != 1 {
		t.Error("a second snapshot beside the first: want a failure, and the source closed")
	}
	if _, err := feed.Write([]byte("ok")); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if !next(t, a.sent, "outcome of the first snapshot") {
		t.Error("the first snapshot failed")
	}

	b.recorder.set(errors.New("not now"), nil)
	a.SendSnapshot(snapTo(1, 2, 9), &source{Reader: strings.NewReader("x")}, 1)
	if next(t, a.sent, "outcome of a snapshot that is not taken") {
		t.Error("a snapshot that the owner refused: want a failure")
	}

	b.stop()
	a.SendSnapshot(snapTo(1, 2, 9), &source{Reader: strings.NewReader("x")}, 1)
	if next(t, a.sent, "outcome of a snapshot to a dead member") {
		t.Error("a dead member: want a failure")
	}
}

// Many leaders' snapshots at once would fill the disk.
func TestSnapshotsReceivedAtOnceAreBounded(t *testing.T) {
	b := serve(t, 9, func(c *Config) { c.SnapshotsInMax = 1 })
	a, c := serve(t, 1, nil), serve(t, 2, nil)
	join(t, a, b)
	join(t, c, b)
	slow, feed := io.Pipe()
	a.SendSnapshot(snapTo(1, 9, 7), slow, 2)
	if _, err := feed.Write([]byte("o")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first is being received", func() bool { return b.Stats()[0].SnapshotsBeingReceived == 1 })
	c.SendSnapshot(snapTo(2, 9, 8), &source{Reader: strings.NewReader("x")}, 1)
	if next(t, c.sent, "outcome of the second") {
		t.Error("the second was taken")
	}
	if _, err := feed.Write([]byte("k")); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if !next(t, a.sent, "outcome of the first") {
		t.Error("the first failed")
	}
	c.SendSnapshot(snapTo(2, 9, 8), &source{Reader: strings.NewReader("x")}, 1)
	if !next(t, c.sent, "outcome of the third") {
		t.Error("the third failed, though nothing else is under way")
	}
}

// A full disk must be named, and must not be made fuller by the remains.
func TestSnapshotOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	rec := newRecorder()
	tr, err := New(Config{Self: 1, Cluster: testCluster, Receiver: rec, SnapDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	body, err := appendSized(nil, snapTo(2, 1, 7))
	if err != nil {
		t.Fatal(err)
	}
	w := call(tr.Handler(), "POST", "/raft/snapshot", headerOf(), append(body, make([]byte, 2<<20)...))
	if w.Code != http.StatusInsufficientStorage || !strings.Contains(w.Body.String(), "no space left on device") {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// A member that is told to stop while it receives a large snapshot must stop.
func TestStopWhileReceiving(t *testing.T) {
	a, b := serve(t, 1, nil), serve(t, 2, nil)
	join(t, a, b)
	slow, feed := io.Pipe()
	a.SendSnapshot(snapTo(1, 2, 7), slow, 2)
	if _, err := feed.Write([]byte("o")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is being received", func() bool { return b.Stats()[0].SnapshotsBeingReceived == 1 })
	b.stop()
	if got := files(t, b.cfg.SnapDir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	feed.Close() // the sender looks at the answer when its source moves
	if next(t, a.sent, "outcome") {
		t.Error("told to be sent")
	}
	a.stop()
	// After Run nothing is told, but the source is closed.
	src := &source{Reader: strings.NewReader("x")}
	a.SendSnapshot(snapTo(1, 2, 7), src, 1)
	if src.closed.Load() != 1 {
		t.Error("the source was not closed")
	}
	if err := a.Run(context.Background()); !errors.Is(err, ErrStopped) {
		t.Errorf("Run again: %v", err)
	}
}

// saveObserver is told how long saving took.
type saveObserver chan struct{ total, sync time.Duration }

func (o saveObserver) RoundTrip(uint64, time.Duration)              {}
func (o saveObserver) SnapshotSend(uint64, time.Duration, error)    {}
func (o saveObserver) SnapshotReceive(uint64, time.Duration, error) {}
func (o saveObserver) SnapshotSaved(total, sync time.Duration) {
	o <- struct{ total, sync time.Duration }{total, sync}
}
