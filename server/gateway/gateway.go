package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// metadataPrefix marks what passes between HTTP headers and gRPC metadata.
const metadataPrefix = "Grpc-Metadata-"

// Gateway serves /v3/ and, for old clients, /v3beta/. Its methods may be called
// from any goroutine.
type Gateway struct {
	conn         grpc.ClientConnInterface
	routes       map[string]*route // by path; never written after New
	jsonBytesMax int
}

// New is a gateway to the server behind conn. It reads at most jsonBytesMax
// bytes of JSON for one message.
func New(conn grpc.ClientConnInterface, jsonBytesMax int) *Gateway {
	return &Gateway{conn: conn, routes: routes(), jsonBytesMax: jsonBytesMax}
}

// ServeHTTP is http.Handler's.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if old, ok := strings.CutPrefix(path, "/v3beta/"); ok {
		path = "/v3/" + old
	}
	w.Header().Set("Content-Type", "application/json")
	rt, ok := g.routes[path]
	switch {
	case !ok:
		writeError(w, status.New(codes.NotFound, "Not Found"))
	case r.Method != http.MethodPost:
		writeError(w, status.New(codes.Unimplemented, "Method Not Allowed"))
	case rt.unary():
		g.call(w, r, rt)
	default:
		g.stream(w, r, rt)
	}
}

// call serves a unary method.
func (g *Gateway) call(w http.ResponseWriter, r *http.Request, rt *route) {
	request, answer := rt.request.New().Interface(), rt.answer.New().Interface()
	requests := newRequests(r.Body, g.jsonBytesMax)
	if err := requests.next(request); err != nil && !errors.Is(err, io.EOF) {
		writeError(w, status.Convert(err))
		return
	}
	requests.drain()
	waiting, cancel, err := withTimeout(r)
	if err != nil {
		writeError(w, status.Convert(err))
		return
	}
	defer cancel()
	var header metadata.MD
	err = g.conn.Invoke(withMetadata(waiting, r), rt.method, request, answer, grpc.Header(&header))
	var body []byte
	if err == nil {
		body, err = encode(answer)
	}
	if err != nil {
		writeError(w, status.Convert(err))
		return
	}
	writeMetadata(w, header)
	_, _ = w.Write(body)
}

// stream serves a method whose answer is a stream.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, rt *route) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 is, always
	waiting, stop, err := withTimeout(r)
	if err != nil {
		writeError(w, status.Convert(err))
		return
	}
	defer stop()
	ctx, cancel := context.WithCancelCause(withMetadata(waiting, r))
	s, err := g.conn.NewStream(ctx, &rt.stream, rt.method)
	if err != nil {
		cancel(nil)
		writeStreamError(w, status.Convert(err))
		return
	}
	var sending sync.WaitGroup
	sent := make(chan struct{})
	sending.Go(func() {
		defer close(sent)
		if err := send(s, newRequests(r.Body, g.jsonBytesMax), rt); err != nil {
			cancel(err)
		}
	})
	defer func() {
		cancel(nil)
		select {
		case <-sent:
		default: // a client that sends no more must not keep us
			_ = control.SetReadDeadline(time.Unix(1, 0))
		}
		sending.Wait()
	}()
	receive(ctx, w, s, rt)
}

// send passes on what the client sends, until it has said all. A method that
// takes one request gets one, empty if need be.
func send(s grpc.ClientStream, requests *requests, rt *route) error {
	for {
		m := rt.request.New().Interface()
		err := requests.next(m)
		switch {
		case errors.Is(err, io.EOF) && rt.stream.ClientStreams:
			return s.CloseSend()
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return nil // the receiving side learns why
		}
		if !rt.stream.ClientStreams {
			err := s.CloseSend()
			requests.drain()
			return err
		}
	}
}

// receive writes each answer on a line of its own, until the stream ends.
func receive(ctx context.Context, w http.ResponseWriter, s grpc.ClientStream, rt *route) {
	control := http.NewResponseController(w)
	for first := true; ; first = false {
		m := rt.answer.New().Interface()
		err := s.RecvMsg(m)
		var body []byte
		if err == nil {
			body, err = encode(m)
		}
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			if why := context.Cause(ctx); why != nil {
				err = why
			}
			endStream(w, status.Convert(err), first)
			return
		}
		if first {
			header, _ := s.Header()
			writeMetadata(w, header)
		}
		if err := writeLine(w, "result", body); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
	}
}

// endStream tells of an error: by the HTTP status while that is still possible.
func endStream(w http.ResponseWriter, st *status.Status, first bool) {
	if first {
		writeStreamError(w, st)
		return
	}
	_ = writeLine(w, "error", encodeStatus(st))
}

func writeLine(w io.Writer, key string, body []byte) error {
	line := make([]byte, 0, len(key)+len(body)+6)
	line = append(append(append(line, `{"`...), key...), `":`...)
	line = append(append(line, body...), "}\n"...)
	_, err := w.Write(line)
	return err
}

// withMetadata adds to a request's context the metadata that its headers
// stand for. The mark that it came through here turns off users by certificate.
func withMetadata(ctx context.Context, r *http.Request) context.Context {
	md := metadata.MD{}
	for name, values := range r.Header {
		if key, ok := strings.CutPrefix(name, metadataPrefix); ok && key != "" {
			md.Append(key, values...)
		}
	}
	md.Append("authorization", r.Header.Values("Authorization")...)
	md.Set("grpcgateway-accept", cmp.Or(r.Header.Get("Accept"), "*/*"))
	return metadata.NewOutgoingContext(ctx, md)
}

func writeMetadata(w http.ResponseWriter, md metadata.MD) {
	for key, values := range md {
		for _, v := range values {
			w.Header().Add(metadataPrefix+key, v)
		}
	}
}

// encode is compact JSON: what protojson puts between tokens is not stable.
func encode(m proto.Message) ([]byte, error) {
	loose, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	body := bytes.NewBuffer(loose[:0]) // shorter, so it never overtakes what is read
	err = json.Compact(body, loose)
	return body.Bytes(), err
}
