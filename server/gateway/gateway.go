package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// metadataPrefix marks what passes between HTTP headers and gRPC metadata.
const metadataPrefix = "Grpc-Metadata-"

const (
	// pieceBytes of an answer must be taken within stallTimeout.
	pieceBytes   = 256 << 10
	stallTimeout = time.Minute
	// Messages from largeBytes on are encoded a few at a time; while that goes on
	// they take some times their size.
	largeBytes       = 1 << 20
	encodingsAtOnce  = 2
	rangesAtOnce     = 4
	jsonEncodeGrowth = 4
	// jsonSpareBytes is for the names and braces of a message.
	jsonSpareBytes = 256
)

// Gateway serves /v3/ and, for old clients, /v3beta/. Its methods may be called
// from any goroutine.
type Gateway struct {
	conn    grpc.ClientConnInterface
	routes  map[string]*route // by path; never written after New
	limits  Limits
	origins []string
	// encoding has a place for each large answer that is encoded.
	encoding chan struct{}
	ranges   chan struct{} // the same for ranges, from the call to the JSON
}

// Limits bound what one message of a client may cost.
type Limits struct {
	JSONBytesMax    int // of the message as it is read
	MessageBytesMax int // that gRPC takes, told to whose message has more
	// Hold, if set, counts an answer that waits for its client to read it.
	Hold func(bytes int) (release func())
}

// New is a gateway to the server behind conn. Pages of the origins may open
// WebSockets; none or "*" is all.
func New(conn grpc.ClientConnInterface, limits Limits, origins []string) *Gateway {
	return &Gateway{conn: conn, routes: routes(), limits: limits, origins: origins, encoding: make(chan struct{}, encodingsAtOnce), ranges: make(chan struct{}, rangesAtOnce)}
}

// ServeHTTP is http.Handler's.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if old, ok := strings.CutPrefix(path, "/v3beta/"); ok {
		path = "/v3/" + old
	}
	rt := g.routes[path]
	if isUpgrade(r) {
		g.bridge(w, r, rt)
		return
	}
	control := http.NewResponseController(w)
	_ = g.serve(w, r, rt, func(error) {
		_ = control.SetReadDeadline(time.Unix(1, 0)) // a client that sends no more must not keep us
	})
}

// serve answers one request. It calls hangUp, if the client may have more to
// say, when nobody will listen any longer. The error is what the client was told.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, rt *route, hangUp func(error)) error {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case rt == nil:
		return writeError(w, status.Error(codes.NotFound, "Not Found"))
	case methodOf(r) != http.MethodPost:
		return writeError(w, status.Error(codes.Unimplemented, "Method Not Allowed"))
	}
	ctx, stop, err := withMetadata(r)
	if err != nil {
		return writeError(w, err)
	}
	defer stop()
	r = r.WithContext(ctx)
	if rt.unary() {
		return g.call(w, r, rt)
	}
	return g.stream(w, r, rt, hangUp)
}

// methodOf is the method of a request: a form may name another.
func methodOf(r *http.Request) string {
	override := r.Header.Get("X-HTTP-Method-Override")
	if override == "" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return r.Method
	}
	return strings.ToUpper(override)
}

// call serves a unary method.
func (g *Gateway) call(w http.ResponseWriter, r *http.Request, rt *route) error {
	request := rt.request.New().Interface()
	requests := newRequests(r.Body, g.limits)
	if err := requests.next(request); err != nil && !errors.Is(err, io.EOF) {
		return writeError(w, err)
	}
	requests.drain()
	body, header, err := g.invoke(r.Context(), rt, request)
	if err != nil {
		return writeError(w, err)
	}
	writeMetadata(w, header)
	_ = g.write(w, body)
	return nil
}

// invoke makes the call and encodes the answer. Ranges, which may be of any size,
// take turns: on its way through here an answer is held several times.
func (g *Gateway) invoke(ctx context.Context, rt *route, request proto.Message) (body []byte, header metadata.MD, err error) {
	if r, ok := request.(*pb.RangeRequest); ok && len(r.RangeEnd) > 0 && !r.CountOnly {
		select {
		case g.ranges <- struct{}{}:
			defer func() { <-g.ranges }()
		case <-ctx.Done():
			return nil, nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	answer := rt.answer.New().Interface()
	if err := g.conn.Invoke(ctx, rt.method, request, answer, grpc.Header(&header)); err != nil {
		return nil, header, err
	}
	body, err = g.encodeHeld("", answer)
	return body, header, err
}

// stream serves a method whose answer is a stream.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, rt *route, hangUp func(error)) (failed error) {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 is, always
	ctx, cancel := context.WithCancelCause(r.Context())
	requests := newRequests(r.Body, g.limits)
	requests.strict = isUpgraded(w)
	var only proto.Message
	if !rt.stream.ClientStreams {
		only = rt.request.New().Interface()
		if err := requests.next(only); err != nil && !errors.Is(err, io.EOF) {
			cancel(nil)
			return writeError(w, err)
		}
	}
	s, err := g.conn.NewStream(ctx, &rt.stream, rt.method)
	if err != nil {
		cancel(nil)
		return writeStreamError(w, err)
	}
	var sending sync.WaitGroup
	sent := make(chan struct{})
	sending.Go(func() {
		defer close(sent)
		if err := send(s, requests, rt, only); err != nil {
			cancel(err)
		}
	})
	defer func() {
		cancel(nil)
		select {
		case <-sent:
		default:
			hangUp(failed)
		}
		sending.Wait()
	}()
	return g.receive(ctx, w, s, rt)
}

// send passes on what the client sends, until it has said all. A method that
// takes one request gets only, which has been read. What follows a good message
// and is none ends what the client says, as with etcd: its stream goes on.
func send(s grpc.ClientStream, requests *requests, rt *route, only proto.Message) error {
	if only != nil {
		_ = s.SendMsg(only) // the receiving side learns of errors
		err := s.CloseSend()
		requests.drain()
		return err
	}
	for first := true; ; first = false {
		m := rt.request.New().Interface()
		err := requests.next(m)
		switch {
		case errors.Is(err, io.EOF), status.Code(err) == codes.InvalidArgument && !first && !requests.strict:
			return s.CloseSend()
		case err != nil:
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return nil // the receiving side learns why
		}
	}
}

// receive writes each answer on a line of its own, until the stream ends.
func (g *Gateway) receive(ctx context.Context, w http.ResponseWriter, s grpc.ClientStream, rt *route) error {
	control := http.NewResponseController(w)
	for first := true; ; first = false {
		m := rt.answer.New().Interface()
		err := s.RecvMsg(m)
		var body []byte
		if err == nil {
			body, err = g.encodeHeld("result", m)
		}
		switch {
		case errors.Is(err, io.EOF):
			if first {
				w.Header().Del("Content-Type") // of nothing
				_ = control.Flush()
			}
			return nil
		case err != nil:
			if why := context.Cause(ctx); status.Code(why) != codes.Unknown && why != nil {
				err = why // what the client sent
			}
			return endStream(w, err, first)
		}
		if first {
			header, _ := s.Header()
			writeMetadata(w, header)
		}
		if err := errors.Join(g.write(w, body), control.Flush()); err != nil {
			return status.Error(codes.Canceled, err.Error())
		}
	}
}

// endStream tells of an error: by the HTTP status while that is still possible.
func endStream(w http.ResponseWriter, err error, first bool) error {
	if first {
		return writeStreamError(w, err)
	}
	_, _ = w.Write(encodeStatus("error", status.Convert(err)))
	return err
}

// write writes in pieces: a client that takes none of them for a while is gone
// or means harm.
func (g *Gateway) write(w http.ResponseWriter, body []byte) error {
	if g.limits.Hold != nil {
		defer g.limits.Hold(len(body))()
	}
	if isUpgraded(w) { // keepAlive sees to it
		_, err := w.Write(body)
		return err
	}
	control := http.NewResponseController(w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	for piece := range slices.Chunk(body, pieceBytes) {
		_ = control.SetWriteDeadline(time.Now().Add(stallTimeout))
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// encodeHeld is encode for an answer of any size: few large ones at once, and
// counted meanwhile.
func (g *Gateway) encodeHeld(key string, m proto.Message) ([]byte, error) {
	size := proto.Size(m)
	if size < largeBytes || g.limits.Hold == nil {
		return encode(key, m)
	}
	defer g.limits.Hold(jsonEncodeGrowth * size)()
	g.encoding <- struct{}{}
	defer func() { <-g.encoding }()
	return encode(key, m)
}

// encode is compact JSON: what protojson puts between tokens is not stable. With
// a key it is a line {"key":…}.
func encode(key string, m proto.Message) ([]byte, error) {
	head := make([]byte, 0, proto.Size(m)*3/2+jsonSpareBytes) // base64 takes a third more
	if key != "" {
		head = append(append(append(head, `{"`...), key...), `":`...)
	}
	loose, err := protojson.MarshalOptions{UseProtoNames: true}.MarshalAppend(head, m)
	if err != nil {
		return nil, err
	}
	body := bytes.NewBuffer(loose[:len(head)]) // shorter, so it never overtakes what is read
	if err := json.Compact(body, loose[len(head):]); err != nil || key == "" {
		return body.Bytes(), err
	}
	return append(body.Bytes(), "}\n"...), nil
}
