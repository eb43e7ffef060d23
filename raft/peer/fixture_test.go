package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const testCluster = 0xcdf818194e3a8c32

// recorder is a Receiver that keeps what it is told.
type recorder struct {
	msgs        chan *raftpb.Message
	snapshots   chan receivedSnapshot
	unreachable chan uint64
	sent        chan bool
	selfRemoved chan struct{}

	mu      sync.Mutex // guards what follows
	removed map[uint64]bool
	refuse  error           // what Receive and ReceiveSnapshot return
	block   <-chan struct{} // Receive waits for it
}

type receivedSnapshot struct {
	msg  *raftpb.Message
	path string
}

func newRecorder() *recorder {
	return &recorder{
		msgs: make(chan *raftpb.Message, 1<<16), snapshots: make(chan receivedSnapshot, 16),
		unreachable: make(chan uint64, 1<<12), sent: make(chan bool, 16), selfRemoved: make(chan struct{}, 16),
		removed: map[uint64]bool{},
	}
}

func (r *recorder) Receive(ctx context.Context, m *raftpb.Message) error {
	r.mu.Lock()
	refuse, block := r.refuse, r.block
	r.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if refuse != nil {
		return refuse
	}
	select {
	case r.msgs <- m:
		return nil
	default:
		return errors.New("recorder full")
	}
}

func (r *recorder) ReceiveSnapshot(_ context.Context, m *raftpb.Message, path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		return r.refuse
	}
	r.snapshots <- receivedSnapshot{m, path}
	return nil
}

func (r *recorder) Unreachable(id uint64) {
	select {
	case r.unreachable <- id:
	default:
	}
}
func (r *recorder) SnapshotSent(_ uint64, ok bool) { r.sent <- ok }
func (r *recorder) SelfRemoved()                   { r.selfRemoved <- struct{}{} }

func (r *recorder) Removed(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed[id]
}

func (r *recorder) remove(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed[id] = true
}

func (r *recorder) set(refuse error, block <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse, r.block = refuse, block
}

// member is one transport with its recorder and, unless served otherwise, a
// listener.
type member struct {
	*Transport
	*recorder
	id     uint64
	url    string
	listen net.Listener
	http   *http.Server
	stop   func() // ends Run and the listener; waits
}

// serveOn starts a member on a listener.
func serveOn(t testing.TB, id uint64, l net.Listener, url string, change func(*Config)) *member {
	t.Helper()
	m := &member{recorder: newRecorder(), id: id, url: url, listen: l}
	cfg := Config{Self: id, Cluster: testCluster, LocalURLs: []string{url}, Receiver: m.recorder, SnapDir: t.TempDir()}
	if change != nil {
		change(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Transport = tr
	m.http = &http.Server{Handler: tr.Handler(), ErrorLog: log.New(io.Discard, "", 0)}
	go m.http.Serve(l)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		m.http.Close()
	})
	t.Cleanup(func() { m.stop() })
	return m
}

// serve starts a member on a loopback port.
func serve(t testing.TB, id uint64, change func(*Config)) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, id, l, "http://"+l.Addr().String(), change)
}

// join makes all members peers of each other.
func join(t testing.TB, members ...*member) {
	t.Helper()
	for _, a := range members {
		for _, b := range members {
			if err := a.Add(b.id, []string{b.url}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// attached waits until both streams from a to b stand and returns.
func attached(t testing.TB, a, b *member) {
	t.Helper()
	p := a.Transport.peer(b.id)
	eventually(t, fmt.Sprintf("streams from %x to %x", a.id, b.id), func() bool {
		return p.out[streamMessage].isOpen() && p.out[streamMsgApp].isOpen()
	})
}

func (h *health) streamsUp() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams
}

// eventually polls state that has no event of its own to wait for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// next returns what comes out of a channel.
func next[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("did not come: %s", what)
		panic("unreachable")
	}
}

func heartbeatTo(from, to uint64, n uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &to, Term: proto.Uint64(3), Commit: &n}
}

// appTo is a MsgApp at an index with n entries of a size.
func appTo(from, to, term, index uint64, n, size int) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: &from, To: &to,
		Term: &term, LogTerm: proto.Uint64(term), Index: &index, Commit: proto.Uint64(index)}
	for i := range n {
		m.Entries = append(m.Entries, &raftpb.Entry{
			Term: &term, Index: proto.Uint64(index + uint64(i) + 1), Data: slices.Repeat([]byte{byte(i)}, size)})
	}
	return m
}

func same(t *testing.T, got, want *raftpb.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
}

// memNet connects members in memory, with connections that block until they are
// read, so that time in a synctest bubble stands still only when all is quiet.
type memNet struct {
	mu    sync.Mutex
	at    map[string]*memListener
	dials []time.Time
}

func newMemNet() *memNet { return &memNet{at: map[string]*memListener{}} }

type memListener struct {
	addr   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (n *memNet) listen(addr string) *memListener {
	l := &memListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.at[addr] = l
	n.mu.Unlock()
	return l
}

func (n *memNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.at[addr]
	n.dials = append(n.dials, time.Now())
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("nobody listens on %s", addr)
	}
	a, b := net.Pipe()
	select {
	case l.conns <- b:
		return a, nil
	case <-l.closed:
		return nil, fmt.Errorf("%s is closed", addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *memListener) Addr() net.Addr { return memAddr(l.addr) }

type memAddr string

func (a memAddr) Network() string { return "mem" }
func (a memAddr) String() string  { return string(a) }

// call sends one request to a handler as another member would.
func call(h http.Handler, method, path string, header http.Header, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, bytesReader(body))
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
