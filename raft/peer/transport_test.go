package peer

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Messages that are lost, mixed up or reordered while nothing is wrong cost an
// election or a resend.
func TestThreeMembersTalk(t *testing.T) {
	members := []*member{serve(t, 1, nil), serve(t, 2, nil), serve(t, 3, nil)}
	join(t, members...)
	for _, a := range members {
		for _, b := range members {
			if a != b {
				attached(t, a, b)
			}
		}
	}
	const rounds = 500
	for _, a := range members {
		go func() {
			for i := range uint64(rounds) {
				var batch []*raftpb.Message
				for _, b := range members {
					if a != b {
						batch = append(batch, appTo(a.id, b.id, 2, i, 1, 100), heartbeatTo(a.id, b.id, i))
					}
				}
				a.Send(batch)
			}
		}()
	}
	for _, b := range members {
		apps, beats := map[uint64]uint64{}, map[uint64]uint64{}
		for range 2 * rounds * 2 {
			m := next(t, b.msgs, "message")
			counter, at := apps, m.GetIndex()
			if m.GetType() == raftpb.MsgHeartbeat {
				counter, at = beats, m.GetCommit()
			}
			if counter[m.GetFrom()] != at {
				t.Fatalf("from %x: %d came when %d was due", m.GetFrom(), at, counter[m.GetFrom()])
			}
			counter[m.GetFrom()]++
		}
		if len(b.Connected()) != 2 {
			t.Errorf("connected to %x", b.Connected())
		}
	}
	for _, s := range members[0].Stats() {
		if s.SentBytes == 0 || s.ReceivedBytes == 0 || !s.Active || s.SendFailures != 0 || s.ReceiveFailures != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// One message value goes to all followers; a link that changed it would corrupt
// what the others get. Run with -race to see it.
func TestMessagesAreShared(t *testing.T) {
	a, b, c := serve(t, 1, nil), serve(t, 2, nil), serve(t, 3, nil)
	join(t, a, b)
	join(t, a, c)
	attached(t, a, b)
	attached(t, a, c)
	shared := appTo(1, 2, 2, 0, 100, 1000).Entries
	for i := range uint64(50) {
		toB, toC := appTo(1, 2, 2, i, 0, 0), appTo(1, 3, 2, i, 0, 0)
		toB.Entries, toC.Entries = shared, shared
		a.Send([]*raftpb.Message{toB, toC})
	}
	for range 50 {
		if n := len(next(t, b.msgs, "message").Entries) + len(next(t, c.msgs, "message").Entries); n != 200 {
			t.Fatalf("%d entries, want 200", n)
		}
	}
}

// A member that just joined has no streams yet and must be reached all the same.
func TestRemotesTalkByPost(t *testing.T) {
	a, b := serve(t, 1, nil), serve(t, 2, nil)
	if err := a.AddRemote(2, []string{b.url}); err != nil {
		t.Fatal(err)
	}
	a.Send([]*raftpb.Message{heartbeatTo(1, 2, 5), appTo(1, 2, 3, 4, 2, 10)})
	same(t, next(t, b.msgs, "first"), heartbeatTo(1, 2, 5))
	same(t, next(t, b.msgs, "second"), appTo(1, 2, 3, 4, 2, 10))
	// b did not know a, and can answer now.
	b.Send([]*raftpb.Message{heartbeatTo(2, 1, 6)})
	same(t, next(t, a.msgs, "answer"), heartbeatTo(2, 1, 6))
	if s := b.Stats()[0]; !s.Remote || s.MessageStream {
		t.Errorf("%+v, want a remote", s)
	}
	// Both become members: streams come up.
	join(t, a, b)
	attached(t, a, b)
	attached(t, b, a)
	if s := b.Stats()[0]; s.Remote {
		t.Errorf("%+v, want a peer", s)
	}
}

// A cluster must heal by itself when a member comes back.
func TestMemberComesBack(t *testing.T) {
	a, b := serve(t, 1, nil), serve(t, 2, nil)
	join(t, a, b)
	attached(t, a, b)
	eventually(t, "both streams from b", func() bool { return a.Transport.peer(2).health.streamsUp() == 2 })
	addr := b.listen.Addr().String()
	b.stop()
	next(t, a.unreachable, "unreachable")
	eventually(t, "inactive", func() bool { return a.ActiveSince(2).IsZero() })
	a.Send([]*raftpb.Message{heartbeatTo(1, 2, 1)}) // to nobody, by post
	next(t, a.unreachable, "unreachable after a post")

	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b = serveOn(t, 2, l, b.url, nil)
	join(t, a, b)
	attached(t, a, b)
	attached(t, b, a)
	eventually(t, "active", func() bool { return !a.ActiveSince(2).IsZero() })
	a.Send([]*raftpb.Message{heartbeatTo(1, 2, 2)})
	for m := next(t, b.msgs, "message"); m.GetCommit() != 2; m = next(t, b.msgs, "message") {
	}
	if s := a.Stats()[0]; s.Disconnected != 1 {
		t.Errorf("%d disconnections, want 1", s.Disconnected)
	}
}

// A member with several addresses stays reachable when one of them fails.
func TestNextURLIsTried(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	a, b := serve(t, 1, nil), serve(t, 2, nil)
	if err := b.Add(1, []string{"http://" + dead.Addr().String(), a.url}); err != nil {
		t.Fatal(err)
	}
	if err := a.Add(2, []string{"http://" + dead.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	attached(t, a, b)
	if err := a.Update(2, []string{"http://" + dead.Addr().String(), b.url}); err != nil {
		t.Fatal(err)
	}
	attached(t, b, a)
	if err := a.Update(2, []string{"gopher://x"}); err == nil {
		t.Error("a wrong URL was accepted")
	}
}

// A removed member must learn it, and must not be listened to.
func TestRemovedMember(t *testing.T) {
	a, b, c := serve(t, 1, nil), serve(t, 2, nil), serve(t, 3, nil)
	join(t, a, b, c)
	attached(t, a, b)
	attached(t, a, c)
	a.remove(2)
	a.Remove(2)
	next(t, b.selfRemoved, "told by 410")
	b.Send([]*raftpb.Message{heartbeatTo(2, 1, 1)})
	next(t, b.unreachable, "unreachable")
	a.Send([]*raftpb.Message{heartbeatTo(1, 2, 1), heartbeatTo(1, 3, 1)})
	next(t, c.msgs, "message to one who stayed")
	if len(a.msgs) != 0 || len(b.msgs) != 0 {
		t.Error("a removed member still talks")
	}
	if len(b.selfRemoved) != 0 {
		t.Error("told twice")
	}
}

// A joined remote that was removed learns it from the answer to a post.
func TestRemovedRemote(t *testing.T) {
	a, b := serve(t, 1, nil), serve(t, 2, nil)
	a.remove(2)
	if err := b.AddRemote(1, []string{a.url}); err != nil {
		t.Fatal(err)
	}
	b.Send([]*raftpb.Message{heartbeatTo(2, 1, 1)})
	next(t, b.selfRemoved, "told by 403")
}

// A follower that takes nothing must not stop the leader or fill its memory.
func TestSlowReader(t *testing.T) {
	a := serve(t, 1, func(c *Config) { c.QueueBytesMax, c.QueueCountMax = 1<<20, 100 })
	b, c := serve(t, 2, nil), serve(t, 3, nil)
	join(t, a, b)
	join(t, a, c)
	attached(t, a, b)
	attached(t, a, c)
	release := make(chan struct{})
	b.recorder.set(nil, release)
	p := a.Transport.peer(2)
	sent := 0
	for p.count.sendFailures.Load() == 0 { // until the sockets and the queue are full
		a.Send([]*raftpb.Message{appTo(1, 2, 2, uint64(sent), 1, 100<<10)})
		if sent++; sent > 10000 {
			t.Fatal("everything was taken")
		}
	}
	next(t, a.unreachable, "unreachable")
	for range 1000 {
		a.Send([]*raftpb.Message{appTo(1, 2, 2, 0, 1, 100<<10)})
	}
	if held := p.out[streamMsgApp].bytes; held > 1<<20 {
		t.Errorf("%d bytes are queued", held)
	}
	if n := len(a.unreachable); n > 20 {
		t.Errorf("%d reports of one burst", n)
	}
	a.Send([]*raftpb.Message{heartbeatTo(1, 3, 9), heartbeatTo(1, 2, 9)})
	same(t, next(t, c.msgs, "message to a healthy member"), heartbeatTo(1, 3, 9))
	close(release)
	for m := next(t, b.msgs, "message"); m.GetType() != raftpb.MsgHeartbeat; m = next(t, b.msgs, "message") {
	}
}

// A queue must take one message however large, be bounded both ways, and tell
// of a burst once.
func TestQueueBounds(t *testing.T) {
	q := newQueue(3, 1000)
	m := heartbeatTo(1, 2, 1)
	if q.put(m) != putClosed {
		t.Error("a queue that nobody drains took a message")
	}
	s := q.open()
	big := appTo(1, 2, 1, 1, 1, 5000)
	for i, step := range []struct {
		m    *raftpb.Message
		want putResult
	}{{big, putDone}, {m, putDroppedNew}, {m, putDropped}} {
		if got := q.put(step.m); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	q.recycle(q.drain(s))
	for i, want := range []putResult{putDone, putDone, putDone, putDroppedNew, putDropped} {
		if got := q.put(m); got != want {
			t.Errorf("small %d: %d, want %d", i, got, want)
		}
	}
	other := q.open()
	if q.drain(s) != nil || q.close(s) {
		t.Error("a session that was replaced still holds the queue")
	}
	if q.drain(other) != nil {
		t.Error("messages of the former stream went to the new one")
	}
}

// A stream that stays attached after its reader dialed again would swallow
// messages until it times out.
func TestStreamIsReplaced(t *testing.T) {
	a := serve(t, 1, nil)
	if err := a.Add(2, []string{"http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	dial := func() *http.Response {
		req, err := http.NewRequest(http.MethodGet, a.url+"/raft/stream/message/2", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = headerOf()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	first := dial()
	second := dial()
	if _, err := io.ReadAll(first.Body); err != nil {
		t.Errorf("the first stream should end in order: %v", err)
	}
	a.Send([]*raftpb.Message{heartbeatTo(1, 2, 7)})
	m, _, err := streamMessage.decoder(second.Body, 1, 2).next()
	if err != nil {
		t.Fatal(err)
	}
	same(t, m, heartbeatTo(1, 2, 7))
	if len(a.unreachable) != 0 {
		t.Error("a replaced stream is no failure")
	}
}

// A message for somebody else on our stream must not reach our raft.
func TestMisdirectedMessageOnStream(t *testing.T) {
	a, b := serve(t, 1, nil), serve(t, 2, nil)
	join(t, a, b)
	attached(t, a, b)
	wrong := heartbeatTo(1, 7, 1)
	a.Transport.peer(2).send(wrong)
	a.Send([]*raftpb.Message{heartbeatTo(1, 2, 2)})
	same(t, next(t, b.msgs, "message"), heartbeatTo(1, 2, 2))
	if s := b.Stats()[0]; s.ReceiveFailures != 1 {
		t.Errorf("%d failures, want 1", s.ReceiveFailures)
	}
}

// memPair starts two joined members in a bubble of synthetic time.
func memPair(t *testing.T, change func(*Config)) (n *memNet, a, b *member) {
	n = newMemNet()
	with := func(c *Config) {
		c.Dial = n.dial
		if change != nil {
			change(c)
		}
	}
	a = serveOn(t, 1, n.listen("a:1"), "http://a:1", with)
	b = serveOn(t, 2, n.listen("b:1"), "http://b:1", with)
	join(t, a, b)
	return n, a, b
}

// A quiet cluster must not lose its streams.
func TestIdleStreamsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rtts rttObserver
		n, a, b := memPair(t, func(c *Config) { c.Observer = &rtts })
		attached(t, a, b)
		attached(t, b, a)
		time.Sleep(time.Second)
		synctest.Wait()
		n.mu.Lock()
		dials := len(n.dials)
		n.mu.Unlock()
		since := a.ActiveSince(2)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		n.mu.Lock()
		more := len(n.dials) - dials
		n.mu.Unlock()
		if more > 2 { // the connections for probes
			t.Errorf("%d new connections in ten quiet minutes", more)
		}
		if a.ActiveSince(2) != since || since.IsZero() {
			t.Errorf("active since %v, was %v", a.ActiveSince(2), since)
		}
		if got := rtts.n.Load(); got < 2*149 || got > 2*151 {
			t.Errorf("%d probes in ten minutes, want one each 4 s from each side", got)
		}
		a.stop()
		b.stop()
	})
}

type rttObserver struct{ n atomic.Int64 }

func (o *rttObserver) RoundTrip(uint64, time.Duration)              { o.n.Add(1) }
func (o *rttObserver) SnapshotSend(uint64, time.Duration, error)    {}
func (o *rttObserver) SnapshotReceive(uint64, time.Duration, error) {}
func (o *rttObserver) SnapshotSaved(_, _ time.Duration)             {}

// A member that hangs (SIGSTOP, a cut cable) must be noticed after the read
// timeout, and dialed again, but not faster than every 100 ms.
func TestSilentStreamIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		l := n.listen("b:1")
		accepted := make(chan time.Time, 1000)
		go func() { // answers, and is silent afterwards
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- time.Now()
				go func() {
					defer c.Close()
					if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
					io.Copy(io.Discard, c)
				}()
			}
		}()
		a := serveOn(t, 1, n.listen("a:1"), "http://a:1", func(c *Config) { c.Dial = n.dial; c.ProbeEvery = time.Hour })
		if err := a.Add(2, []string{"http://b:1"}); err != nil {
			t.Fatal(err)
		}
		first := <-accepted
		<-accepted // the other stream
		if gap := (<-accepted).Sub(first); gap < 5*time.Second || gap > 6*time.Second {
			t.Errorf("dialed again after %v, want 5 s", gap)
		}
		l.Close()
		time.Sleep(6 * time.Second)
		n.mu.Lock()
		before := len(n.dials)
		n.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n.mu.Lock()
		dials := len(n.dials) - before
		n.mu.Unlock()
		if dials < 150 || dials > 202 {
			t.Errorf("%d dials in 10 s by two streams, want one each 100 ms", dials)
		}
		a.stop()
	})
}

// A reader that hangs must not hold the stream's goroutine for ever.
func TestHungReaderIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		a := serveOn(t, 1, n.listen("a:1"), "http://a:1", func(c *Config) { c.Dial = n.dial; c.ProbeEvery = time.Hour })
		if err := a.Add(2, []string{"http://b:1"}); err != nil {
			t.Fatal(err)
		}
		conn, err := n.dial(context.Background(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		req, err := http.NewRequest(http.MethodGet, "http://a:1/raft/stream/msgapp/2", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = headerOf()
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		began := time.Now()
		a.Send([]*raftpb.Message{appTo(1, 2, 2, 1, 1, 1<<20)}) // nobody reads it
		p := a.Transport.peer(2)
		for p.out[streamMsgApp].isOpen() {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("given up after %v, want 5 s", took)
		}
		next(t, a.unreachable, "unreachable")
		a.stop()
	})
}

// A snapshot to a member that hangs must fail, or no other is ever sent to it.
func TestStalledSnapshotIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := memPair(t, nil)
		attached(t, a, b)
		slow, feed := io.Pipe()
		began := time.Now()
		a.SendSnapshot(snapTo(1, 2, 7), slow, 2)
		if ok := <-a.sent; ok {
			t.Error("told to be sent")
		}
		if took := time.Since(began); took < 30*time.Second || took > 35*time.Second {
			t.Errorf("given up after %v, want 30 s", took)
		}
		feed.Close()
		a.stop()
		b.stop()
	})
}

// Members in one host may talk through sockets in the file system.
func TestUnixSockets(t *testing.T) {
	var members []*member
	for id := range uint64(2) {
		path := filepath.Join(t.TempDir(), "p.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, serveOn(t, id+1, l, "unix://"+path, nil))
	}
	join(t, members...)
	attached(t, members[0], members[1])
	members[0].Send([]*raftpb.Message{heartbeatTo(1, 2, 7)})
	same(t, next(t, members[1].msgs, "message"), heartbeatTo(1, 2, 7))
}

// Peer traffic with certificates on both sides must work, survive new
// certificates, and refuse strangers.
func TestTLS(t *testing.T) {
	good, pool := certificate(t)
	stranger, _ := certificate(t)
	var now atomic.Pointer[tls.Config]
	now.Store(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{good}})
	secure := func(id uint64, clientTLS func() *tls.Config) *member {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: []tls.Certificate{good}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
		if err != nil {
			t.Fatal(err)
		}
		return serveOn(t, id, l, "https://"+l.Addr().String(), func(c *Config) { c.TLS = clientTLS })
	}
	a := secure(1, now.Load)
	b := secure(2, now.Load)
	bad := secure(3, func() *tls.Config {
		return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{stranger}}
	})
	plain := secure(4, nil) // trusts the system's authorities only
	join(t, a, b)
	attached(t, a, b)
	attached(t, b, a)
	a.Send([]*raftpb.Message{heartbeatTo(1, 2, 7)})
	same(t, next(t, b.msgs, "message"), heartbeatTo(1, 2, 7))
	a.SendSnapshot(snapTo(1, 2, 9), &source{Reader: bytesReader([]byte("db"))}, 2)
	if !next(t, a.sent, "outcome") {
		t.Error("no snapshot over TLS")
	}
	for _, m := range []*member{bad, plain} {
		if err := m.Add(1, []string{a.url}); err != nil {
			t.Fatal(err)
		}
		m.Send([]*raftpb.Message{heartbeatTo(m.id, 1, 1)})
		next(t, m.unreachable, "unreachable")
	}
	if len(a.msgs) != 0 || len(a.Members()) != 1 {
		t.Error("a stranger was listened to")
	}
}

// certificate is valid for 127.0.0.1, as server and as client, and its own
// authority.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// BenchmarkRoundTrip is one message there and one back, over loopback.
func BenchmarkRoundTrip(b *testing.B) {
	x, y := serve(b, 1, nil), serve(b, 2, nil)
	join(b, x, y)
	attached(b, x, y)
	attached(b, y, x)
	there, back := appTo(1, 2, 2, 1, 1, 256), heartbeatTo(2, 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		x.Send([]*raftpb.Message{there})
		<-y.msgs
		y.Send([]*raftpb.Message{back})
		<-x.msgs
	}
}

// BenchmarkThroughput is messages of one entry as fast as they go.
func BenchmarkThroughput(b *testing.B) {
	x, y := serve(b, 1, nil), serve(b, 2, nil)
	join(b, x, y)
	attached(b, x, y)
	msgs := []*raftpb.Message{appTo(1, 2, 2, 1, 1, 256)}
	window := make(chan struct{}, 512) // as many as raft has in flight
	b.ReportAllocs()
	go func() {
		for range b.N {
			window <- struct{}{}
			x.Send(msgs)
		}
	}()
	for range b.N {
		<-y.msgs
		<-window
	}
}
