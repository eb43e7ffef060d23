package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"golang.org/x/net/http2"
)

const (
	stormMiBMax     = 500 // what the member may have taken at its worst
	stormGoroutines = 60  // more than before, when the storm is over
	stormSenders    = 16
)

// port is one of a member's, and what is said there.
type port struct {
	name, address string
	tls           bool
	seeds         [][]byte
}

// If this fails, bytes that nobody should send to a port end a member, or leave
// it with memory and goroutines that it never gives back.
func TestStormOnEveryPort(t *testing.T) {
	ports, err := process.FreePorts(2)
	check(t, err)
	probes, secured := process.Address(ports[0]), process.Address(ports[1])
	e := start(t, process.Options{Size: 1, Args: []string{
		"--auto-tls", "--listen-metrics-urls", "http://" + probes + ",https://" + secured,
	}})
	m := e.Members[0]
	e.mustPut("/k", "v")
	goroutinesBefore := int(e.metric(m, "go_goroutines"))
	random := newRand(t)
	sent := new(atomic.Int64)
	good := newGoodClient(e)
	ctx, stop := context.WithTimeout(e.ctx, lasting(8*time.Second, 3*time.Minute))
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { good.work(ctx) })
	all := stormPorts(t, e, probes, secured)
	for i := range stormSenders {
		s := &stormSender{random: rand.New(rand.NewPCG(random.Uint64(), uint64(i))), to: all[i%len(all)], sent: sent}
		running.Go(func() { s.work(ctx) })
	}
	running.Wait()
	good.judge(t)
	peak := peakMiB(t, m.PID())
	t.Logf("%d connections; %d puts meanwhile, longest %s; peak memory %d MiB", sent.Load(), good.puts, good.longest.Round(time.Millisecond), peak)
	if peak > stormMiBMax || sent.Load() < 100 {
		t.Errorf("%d MiB were taken (at most %d are allowed), %d connections made", peak, stormMiBMax, sent.Load())
	}
	until(t, "the member is as before", 2*waitMax, func() error {
		if now := int(e.metric(m, "go_goroutines")); now > goroutinesBefore+stormGoroutines {
			return fmt.Errorf("%d goroutines, %d before", now, goroutinesBefore)
		}
		return nil
	})
	e.serves(e.newClient(m.Endpoint()))
}

// stormPorts lists every port, with the requests that the bytes are made of.
func stormPorts(t *testing.T, e *env, probes, secured string) []port {
	t.Helper()
	m := e.Members[0]
	status := e.mustStatus(m)
	client := append(grpcSeeds(t), httpSeeds...)
	return []port{
		{"client", m.Endpoint(), false, client},
		{"peer", strings.TrimPrefix(m.PeerURL, "http://"), false, peerSeeds(status)},
		{"metrics", probes, false, httpSeeds},
		{"metrics under TLS", secured, true, httpSeeds},
		{"TLS itself", secured, false, append(httpSeeds, tlsHello)},
	}
}

// tlsHello is the beginning of a ClientHello.
var tlsHello = []byte("\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x04\x13\x01\x13\x02\x01\x00\x00\xa0\x00\x00\x00\x0e\x00\x0c\x00\x00\x09localhost")

// grpcSeeds are requests of every kind over HTTP/2.
func grpcSeeds(t *testing.T) [][]byte {
	t.Helper()
	put := &pb.PutRequest{Key: []byte("/k"), Value: []byte("v")}
	nested := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}}}
	for range 20 {
		nested = &pb.TxnRequest{Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: nested}}}}
	}
	var seeds [][]byte
	for method, message := range map[string]interface{ MarshalVT() ([]byte, error) }{
		pb.KV_Range_FullMethodName:               &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}},
		pb.KV_Put_FullMethodName:                 put,
		pb.KV_Txn_FullMethodName:                 nested,
		pb.KV_Compact_FullMethodName:             &pb.CompactionRequest{Revision: 1},
		pb.Watch_Watch_FullMethodName:            create("/k", "", 1),
		pb.Lease_LeaseGrant_FullMethodName:       &pb.LeaseGrantRequest{TTL: 5},
		pb.Lease_LeaseKeepAlive_FullMethodName:   &pb.LeaseKeepAliveRequest{ID: 1},
		pb.Auth_Authenticate_FullMethodName:      &pb.AuthenticateRequest{Name: "root", Password: "x"},
		pb.Auth_UserAdd_FullMethodName:           &pb.AuthUserAddRequest{Name: "u", Password: "x"},
		pb.Maintenance_Status_FullMethodName:     &pb.StatusRequest{},
		pb.Maintenance_Snapshot_FullMethodName:   &pb.SnapshotRequest{},
		pb.Cluster_MemberList_FullMethodName:     &pb.MemberListRequest{},
		"/grpc.reflection.v1.ServerReflection/x": &pb.StatusRequest{},
	} {
		var b bytes.Buffer
		b.WriteString(http2.ClientPreface)
		f := http2.NewFramer(&b, nil)
		err := errors.Join(f.WriteSettings(),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: headers(method, contentTypes[0])}),
			f.WriteData(1, true, grpcMessage(message)), f.WriteWindowUpdate(0, 1<<20), f.WritePing(false, [8]byte{}))
		check(t, err)
		seeds = append(seeds, b.Bytes())
	}
	return seeds
}

// httpSeeds are requests for all that is served over HTTP on the client port.
var httpSeeds = [][]byte{
	post("/v3/kv/range", "", `{"key":"L2s=","range_end":"AA==","limit":"3"}`),
	post("/v3/kv/put", "", `{"key":"L2s=","value":"dg=="}`),
	post("/v3/kv/txn", "", `{"compare":[{"key":"L2s=","version":"1","target":"VERSION"}],"success":[{"request_txn":{"success":[{"request_put":{"key":"L2s="}}]}}]}`),
	post("/v3/kv/txn", "", strings.Repeat(`{"success":[{"request_txn":`, 3000)+strings.Repeat(`}]}`, 3000)),
	post("/v3/watch", "", `{"create_request":{"key":"L2s="}}`),
	post("/v3/lease/grant", "", `{"TTL":"5"}`),
	post("/v3/auth/authenticate", "Content-Encoding: gzip\r\n", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV*H,..."),
	[]byte("GET /v3/watch HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85\x01\x02\x03\x04\x7a\x20\x21\x22\x23\x89\x80\x00\x00\x00\x00\xc1\xff\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"),
	[]byte("PUT /v2/keys/a/b HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 22\r\n\r\nvalue=x&ttl=5&dir=true"),
	[]byte("GET /v2/keys/?recursive=true&wait=true&waitIndex=99999999999 HTTP/1.1\r\nHost: x\r\n\r\n"),
	[]byte("GET /v2/keys/a%2f%00../b?quorum=true HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"),
	[]byte("GET /health?serializable=true HTTP/1.1\r\nHost: x\r\nRange: bytes=0-,1-\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"),
	[]byte("GET /readyz?verbose&exclude=x HTTP/1.0\r\n\r\n"),
	[]byte("GET /debug/vars HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999999999\r\n\r\n"),
}

func post(path, more, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", path, more, len(body), body)
}

// peerSeeds are requests of another member of the cluster, but for the messages
// of raft themselves: who may send those is a member, and believed.
func peerSeeds(s *pb.StatusResponse) [][]byte {
	self, other := s.Header.MemberId, s.Header.MemberId+1
	who := func(cluster uint64) string {
		return fmt.Sprintf("X-Server-From: %x\r\nX-Server-Version: 3.7.0\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: %x\r\nX-Raft-To: %x\r\nX-PeerURLs: http://127.0.0.1:1\r\n", other, cluster, self)
	}
	ours, theirs := who(s.Header.ClusterId), who(s.Header.ClusterId+1)
	snapshot := append(binary.BigEndian.AppendUint64(nil, 6), "\x08\x07\x10\x01\x18\x02and a database"...)
	seeds := [][]byte{
		post("/raft", theirs, "\x08\x08\x10\x01\x18\x02\x20\x05"),
		post("/raft", ours, "\xff\xff\xff\xff\xff"),
		post("/raft/snapshot", ours, string(snapshot)),
		post("/raft/snapshot", ours, "\x7f\xff\xff\xff\xff\xff\xff\xff"),
		post("/leases", ours, "\x08\x01"),
		post("/leases/internal", ours, "\x0a\x02\x08\x01"),
		post("/members/promote/"+fmt.Sprint(other), ours, ""),
	}
	for _, path := range []string{
		fmt.Sprintf("/raft/stream/msgapp/%x", other), fmt.Sprintf("/raft/stream/message/%x", other), "/raft/stream/x/y", "/raft/probing",
		"/members", "/members?linearizable=true", "/downgrade/enabled", "/version",
	} {
		seeds = append(seeds, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, ours))
	}
	return append(seeds, []byte("GET /members/hashkv HTTP/1.1\r\nHost: x\r\n"+ours+"Content-Length: 14\r\n\r\n{\"revision\":1}"))
}

// stormSender opens connections to one port and says there what is wrong.
type stormSender struct {
	random *rand.Rand
	to     port
	sent   *atomic.Int64
	open   []net.Conn // left alone with what they have said
}

// leftMax is how many connections a sender leaves open.
const leftMax = 30

func (s *stormSender) work(ctx context.Context) {
	defer func() {
		for _, c := range s.open {
			_ = c.Close()
		}
	}()
	for ctx.Err() == nil {
		if conn := s.dial(ctx); conn != nil {
			s.speak(conn)
			s.sent.Add(1)
		}
	}
}

func (s *stormSender) dial(ctx context.Context) net.Conn {
	var conn net.Conn
	var err error
	dialer := &net.Dialer{Timeout: waitMax}
	if s.to.tls {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", s.to.address) //nolint:gosec // an attacker trusts anybody
	} else {
		conn, err = dialer.DialContext(ctx, "tcp", s.to.address)
	}
	if err != nil {
		return nil // out of ports, or of time
	}
	return conn
}

// speak says something, all at once or in pieces, and then hangs up, listens for
// a moment, or does nothing any more.
func (s *stormSender) speak(conn net.Conn) {
	text := s.mutated()
	_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
	for len(text) > 0 {
		n := len(text)
		if s.random.IntN(3) == 0 {
			n = 1 + s.random.IntN(n)
		}
		if _, err := conn.Write(text[:n]); err != nil {
			break
		}
		text = text[n:]
	}
	switch s.random.IntN(4) {
	case 0:
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.CopyN(io.Discard, conn, 1<<16)
	case 1:
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = io.CopyN(io.Discard, conn, 1<<10)
	case 2:
		if len(s.open) < leftMax {
			s.open = append(s.open, conn)
			return
		}
	}
	_ = conn.Close()
}

// mutated is a seed, damaged; one in ten is left as it is.
func (s *stormSender) mutated() []byte {
	seed := bytes.Clone(s.seed())
	for range s.random.IntN(10) {
		seed = s.damage(seed)
	}
	return seed
}

func (s *stormSender) seed() []byte { return s.to.seeds[s.random.IntN(len(s.to.seeds))] }

// damage does one kind of harm to bytes.
func (s *stormSender) damage(b []byte) []byte {
	if len(b) == 0 {
		return []byte{byte(s.random.Uint32())}
	}
	at := s.random.IntN(len(b))
	switch s.random.IntN(8) {
	case 0:
		b[at] ^= 1 << s.random.IntN(8)
	case 1:
		b[at] = []byte{0, 1, 0x7f, 0x80, 0xff, '\n', ' ', '%'}[s.random.IntN(8)]
	case 2:
		return b[:at]
	case 3:
		return append(b[:at], b[min(len(b), at+1+s.random.IntN(16)):]...)
	case 4: // a number, or a length, that is too large
		return append(append(bytes.Clone(b[:at]), bytes.Repeat([]byte{0xff}, 1+s.random.IntN(10))...), b[at:]...)
	case 5: // the same again
		return append(append(bytes.Clone(b), b[at:]...), b[:at]...)
	case 6: // the end of another
		other := s.seed()
		return append(b[:at:at], other[s.random.IntN(len(other)):]...)
	case 7: // very long
		return append(append(bytes.Clone(b[:at]), bytes.Repeat(b[at:at+1], s.random.IntN(1<<17))...), b[at:]...)
	}
	return b
}
