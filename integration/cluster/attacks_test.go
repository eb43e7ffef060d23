package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func attacks(t *testing.T) []attack {
	ports, err := process.FreePorts(1)
	check(t, err)
	secure := fmt.Sprintf("127.0.0.1:%d", ports[0])
	return []attack{
		{name: "watchers that never read", rssMiBMax: 500, run: unreadWatchers},
		{name: "watchers over JSON that never read", rssMiBMax: 1000, run: unreadJSONWatchers},
		{name: "headers byte by byte", rssMiBMax: 200, run: slowHeaders, thorough: 40 * time.Second},
		{name: "TLS handshakes that never end", args: []string{"--auto-tls", "--listen-metrics-urls", "https://" + secure}, rssMiBMax: 250, run: endlessHandshakes(secure)},
		{name: "ten thousand streams", rssMiBMax: 700, run: manyStreams},
		{name: "messages of 100 MB", rssMiBMax: 300, run: hugeMessages},
		{name: "frames of 16 MB", rssMiBMax: 200, run: hugeFrames},
		{name: "rapid resets", rssMiBMax: 300, run: flood(rapidReset)},
		{name: "flood of SETTINGS", rssMiBMax: 200, run: flood(settingsFlood)},
		{name: "flood of PING", rssMiBMax: 200, run: flood(pingFlood)},
		{name: "endless CONTINUATION", rssMiBMax: 250, run: flood(continuationFlood)},
		{name: "huge header lists", rssMiBMax: 300, run: flood(hugeHeaders)},
		{name: "giant ranges that are never read", args: []string{"--max-unsent-answer-bytes", "268435456"}, rssMiBMax: 1500, prepare: fill, run: unreadRanges},
		{name: "snapshots that are never read", rssMiBMax: 600, prepare: fill, run: unreadSnapshots},
	}
}

// raw is an HTTP/2 connection that does only what it is told.
type raw struct {
	net.Conn
	*http2.Framer
	stream uint32 // the next
}

// connect says hello. Whatever the server says is thrown away, unless silent.
func connect(ctx context.Context, address string, reads bool) (*raw, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	r := &raw{Conn: conn, Framer: http2.NewFramer(conn, nil), stream: 1}
	if reads {
		go func() { _, _ = io.Copy(io.Discard, conn) }()
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	return r, errors.Join(err, r.WriteSettings())
}

// headers encodes the header of a request; a content type makes it gRPC.
func headers(path, contentType string, more ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	all := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path}, {Name: ":authority", Value: "x"},
		{Name: "content-type", Value: contentType}, {Name: "te", Value: "trailers"},
	}
	for _, f := range append(all, more...) {
		_ = e.WriteField(f)
	}
	return b.Bytes()
}

// contentTypes lead to the two HTTP/2 servers of a member.
var contentTypes = []string{"application/grpc", "application/json"}

// flood runs one kind of flood on a few connections to each HTTP/2 server, and
// connects again when the server has had enough.
func flood(one func(r *raw, contentType string) error) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		var running sync.WaitGroup
		for _, contentType := range contentTypes {
			for range 2 {
				running.Go(func() {
					for ctx.Err() == nil {
						r, err := connect(ctx, e.Members[0].Endpoint(), true)
						for err == nil && ctx.Err() == nil {
							err = one(r, contentType)
						}
						if r != nil {
							_ = r.Close()
						}
					}
				})
			}
		}
		running.Wait()
		return nil
	}
}

func (r *raw) open(contentType string, endStream bool, more ...hpack.HeaderField) error {
	path := "/v3/kv/range"
	if contentType == contentTypes[0] {
		path = pb.KV_Range_FullMethodName
	}
	id := r.stream
	r.stream += 2
	return r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: endStream, BlockFragment: headers(path, contentType, more...)})
}

func rapidReset(r *raw, contentType string) error {
	id := r.stream
	return errors.Join(r.open(contentType, false), r.WriteRSTStream(id, http2.ErrCodeCancel))
}

// first makes the connection that of one of the servers.
func (r *raw) first(contentType string) error {
	if r.stream > 1 {
		return nil
	}
	return r.open(contentType, true)
}

func settingsFlood(r *raw, contentType string) error {
	return errors.Join(r.first(contentType), r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 70000}))
}

func pingFlood(r *raw, contentType string) error {
	return errors.Join(r.first(contentType), r.WritePing(false, [8]byte{1}))
}

// continuationFlood is one header that never ends.
func continuationFlood(r *raw, contentType string) error {
	if r.stream == 1 {
		r.stream += 2
		if err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers("/", contentType)}); err != nil {
			return err
		}
	}
	return r.WriteContinuation(1, false, bytes.Repeat([]byte{0, 1, 'a', 1, 'b'}, 3000))
}

// hugeHeaders are requests with some megabytes of header each.
func hugeHeaders(r *raw, contentType string) error {
	id := r.stream
	r.stream += 2
	err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers("/x", contentType)})
	for i := range 1000 {
		var b bytes.Buffer
		_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("v", 15000), Sensitive: true})
		err = errors.Join(err, r.WriteContinuation(id, i == 999, b.Bytes()))
		if err != nil {
			return err
		}
	}
	return nil
}

// request is one gRPC message, framed.
func grpcMessage(m interface{ MarshalVT() ([]byte, error) }) []byte {
	b, err := m.MarshalVT()
	if err != nil {
		panic(err)
	}
	n := len(b)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, b...)
}

// call opens a stream with one request on a connection.
func (r *raw) call(method string, message []byte, ends bool) error {
	id := r.stream
	r.stream += 2
	err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: headers(method, contentTypes[0])})
	return errors.Join(err, r.WriteData(id, ends, message))
}

// putBig keeps a key with a big value changing.
func putBig(ctx context.Context, e *env, key string) error {
	value := strings.Repeat("v", 100<<10)
	for range 200 { // 20 MB: what grows beyond is not the store
		if ctx.Err() != nil {
			break
		}
		if _, err := e.client.Put(ctx, key, value); err != nil && ctx.Err() == nil {
			return fmt.Errorf("put the hot key: %w", err)
		}
	}
	return nil
}

func unreadWatchers(ctx context.Context, e *env) error {
	message := grpcMessage(create("hot", "", 0))
	for range 20 {
		r, err := connect(ctx, e.Members[0].Endpoint(), false)
		if err != nil {
			return err
		}
		for range 20 {
			if err := r.call(pb.Watch_Watch_FullMethodName, message, false); err != nil {
				return err
			}
		}
	}
	return putBig(ctx, e, "hot")
}

func unreadJSONWatchers(ctx context.Context, e *env) error {
	const request = `{"create_request":{"key":"aG90"}}`
	for range 200 {
		if err := say(ctx, e, fmt.Sprintf("POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(request), request)); err != nil {
			return err
		}
	}
	return putBig(ctx, e, "hot")
}

// say opens a connection that says something and then neither speaks nor reads.
func say(ctx context.Context, e *env, text string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.Members[0].Endpoint())
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	_, err = io.WriteString(conn, text)
	return err
}

func slowHeaders(ctx context.Context, e *env) error {
	request := []byte("GET /health HTTP/1.1\r\nX: " + strings.Repeat("y", 1<<10))
	const connections = 500
	var open sync.WaitGroup
	var thrownOut atomic.Int32
	for range connections {
		open.Go(func() {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.Members[0].Endpoint())
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := conn.Write(request[min(i, len(request)-1):][:1]); err != nil {
					thrownOut.Add(1)
					return
				}
				<-tick.C
			}
		})
	}
	open.Wait()
	if n := thrownOut.Load(); long() && n < connections {
		return fmt.Errorf("only %d of %d slow clients were thrown out", n, connections)
	}
	return nil
}

func endlessHandshakes(address string) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		for i := range 500 {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			if i%2 == 0 {
				_, _ = conn.Write([]byte{22, 3, 1, 0x40, 0}) // a record of 16 KB begins
			}
		}
		return nil
	}
}

func manyStreams(ctx context.Context, e *env) error {
	message := grpcMessage(create("many", "", 0))
	for range 5 {
		r, err := connect(ctx, e.Members[0].Endpoint(), true)
		if err != nil {
			return err
		}
		for range 2000 {
			if err := r.call(pb.Watch_Watch_FullMethodName, message, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func hugeMessages(ctx context.Context, e *env) error {
	const size = 100 << 20
	conn, err := grpc.NewClient(e.Members[0].Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(2*size)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = pb.NewKVClient(conn).Put(e.ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, size)})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), fmt.Sprintf("grpc: received message larger than max (%d vs. 2097152)", size+8)) {
		return fmt.Errorf("gRPC: %w", err)
	}
	body := io.MultiReader(strings.NewReader(`{"key":"aw==","value":"`), io.LimitReader(endless('A'), size), strings.NewReader(`"}`))
	answer, err := http.Post(e.Members[0].ClientURL+"/v3/kv/put", "application/json", body)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(text), `{"code":8,"message":"grpc: received message larger than max (`) {
		return fmt.Errorf("JSON: %s, %s, %w", answer.Status, text, err)
	}
	return nil
}

// endless repeats a byte.
type endless byte

func (b endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func hugeFrames(ctx context.Context, e *env) error {
	for _, contentType := range contentTypes {
		r, err := connect(ctx, e.Members[0].Endpoint(), false)
		if err != nil {
			return err
		}
		if err := r.open(contentType, false); err != nil {
			return err
		}
		_ = r.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<24-1)) // it may be cut off while it is sent
		_ = r.SetReadDeadline(time.Now().Add(waitMax))
		if _, err := io.Copy(io.Discard, r.Conn); err != nil && isTimeout(err) {
			return fmt.Errorf("%s: the connection with a frame of 16 MB was not closed", contentType)
		}
	}
	return nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// fill makes a range of 64 MB.
func fill(t *testing.T, e *env) {
	value := strings.Repeat("v", 1<<20)
	for i := range 64 {
		e.mustPut(fmt.Sprintf("fill/%02d", i), value)
	}
}

func unreadRanges(ctx context.Context, e *env) error {
	message := grpcMessage(&pb.RangeRequest{Key: []byte("fill/"), RangeEnd: []byte("fill0")})
	const request = `{"key":"ZmlsbC8=","range_end":"ZmlsbDA="}`
	for range 20 {
		r, err := connect(ctx, e.Members[0].Endpoint(), false)
		if err != nil {
			return err
		}
		if err := r.call(pb.KV_Range_FullMethodName, message, true); err != nil {
			return err
		}
		if err := say(ctx, e, fmt.Sprintf("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(request), request)); err != nil {
			return err
		}
	}
	return nil
}

func unreadSnapshots(ctx context.Context, e *env) error {
	message := grpcMessage(&pb.SnapshotRequest{})
	for range 20 {
		r, err := connect(ctx, e.Members[0].Endpoint(), false)
		if err != nil {
			return err
		}
		if err := r.call(pb.Maintenance_Snapshot_FullMethodName, message, true); err != nil {
			return err
		}
		if err := say(ctx, e, "POST /v3/maintenance/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
			return err
		}
	}
	return nil
}
