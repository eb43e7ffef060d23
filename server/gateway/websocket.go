package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// A client is asked for a sign of life so often, and has so long to answer.
	// Who does not read what it is sent cannot answer either.
	pingEvery   = 30 * time.Second
	pingTimeout = 20 * time.Second
	// bearer is the WebSocket protocol after which a client names its token:
	// browsers let a page set no header but this.
	bearer = "Bearer"
	// tokenCookie is the other place for a token.
	tokenCookie = "token"
	// reasonBytesMax is what a closing frame holds.
	reasonBytesMax = 123
)

var errHungUp = errors.New("the client closed the WebSocket")

// isUpgrade tells whether a request asks for a WebSocket.
func isUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// isUpgraded tells a WebSocket from the writer of an HTTP answer.
func isUpgraded(w http.ResponseWriter) bool {
	_, ok := w.(*frames)
	return ok
}

// bridge serves a method over a WebSocket: what the client sends are the JSON
// messages of the request, and each message of the answer is one text frame. The
// method is POST whatever the query says.
func (g *Gateway) bridge(w http.ResponseWriter, r *http.Request, rt *route) {
	if !g.mayOpen(r) {
		http.Error(w, "pages of this origin may not open a WebSocket here; see --cors", http.StatusForbidden)
		return
	}
	w.Header().Del("Content-Type")
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{bearer}, InsecureSkipVerify: true, // mayOpen has looked at the origin
	})
	if err != nil {
		return // Accept has told the client
	}
	conn.SetReadLimit(-1) // requests has its own bound, and tells of it
	ctx, cancel := context.WithCancel(r.Context())
	f := &frames{conn: conn, cancel: cancel, once: rt == nil || !rt.stream.ClientStreams, header: http.Header{}}
	defer func() { _ = conn.CloseNow() }()
	defer cancel()
	go f.keepAlive(ctx)
	posted := r.Clone(ctx)
	posted.Method, posted.Body, posted.Header = http.MethodPost, io.NopCloser(f), g.withToken(r)
	f.end(g.serve(f, posted, rt, f.end))
}

// mayOpen tells whether the page that a request comes from may read what is
// answered. Programs that are no browsers name no page.
func (g *Gateway) mayOpen(r *http.Request) bool {
	return ownPage(r) || len(g.origins) == 0 || slices.Contains(g.origins, "*") || slices.Contains(g.origins, r.Header.Get("Origin"))
}

// ownPage tells of requests that no page of a foreign origin has made.
func ownPage(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	u, err := url.Parse(origin)
	return origin == "" || (err == nil && strings.EqualFold(u.Host, r.Host))
}

// withToken is the header of a request with the token that a browser can give.
// A cookie comes along unasked, so it counts only for pages that are known.
func (g *Gateway) withToken(r *http.Request) http.Header {
	h := http.Header{}
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "Sec-Websocket-") && name != "Upgrade" && name != "Connection" {
			h[name] = values
		}
	}
	if scheme, token, ok := strings.Cut(r.Header.Get("Sec-Websocket-Protocol"), ","); ok && strings.TrimSpace(scheme) == bearer {
		h.Set("Authorization", bearer+" "+strings.TrimSpace(token))
		return h
	}
	if c, err := r.Cookie(tokenCookie); err == nil && (ownPage(r) || slices.Contains(g.origins, r.Header.Get("Origin"))) {
		h.Set("Authorization", bearer+" "+c.Value)
	}
	return h
}

// frames is a WebSocket as the body of a request and the writer of its answer.
// One goroutine may read while another writes.
type frames struct {
	conn    *websocket.Conn
	cancel  context.CancelFunc
	once    bool      // the request is one frame
	message io.Reader // owner: who reads; what is left of a frame
	read    bool      // owner: who reads; the first frame has been read
	header  http.Header
}

// Read gives the client's frames as one stream of bytes.
func (f *frames) Read(p []byte) (int, error) {
	for {
		if f.message == nil {
			if f.once && f.read {
				return 0, io.EOF
			}
			_, m, err := f.conn.Reader(context.Background()) // closing ends it
			if err != nil {
				return 0, errHungUp
			}
			f.message, f.read = m, true
		}
		n, err := f.message.Read(p)
		switch {
		case errors.Is(err, io.EOF):
			f.message = nil
			if f.once {
				// Nothing more is expected, but that the client goes away.
				context.AfterFunc(f.conn.CloseRead(context.Background()), f.cancel)
			}
		case err != nil:
			return n, errHungUp
		}
		if n > 0 {
			return n, nil
		}
	}
}

// Write sends one line as one frame.
func (f *frames) Write(p []byte) (int, error) {
	err := f.conn.Write(context.Background(), websocket.MessageText, bytes.TrimSuffix(p, []byte("\n")))
	return len(p), err
}

// Header is http.ResponseWriter's; there is no place for it.
func (f *frames) Header() http.Header { return f.header }

// WriteHeader is http.ResponseWriter's; end tells of failures.
func (f *frames) WriteHeader(int) {}

// FlushError is for http.ResponseController: frames are never held back.
func (f *frames) FlushError() error { return nil }

// EnableFullDuplex is for http.ResponseController: a WebSocket is.
func (f *frames) EnableFullDuplex() error { return nil }

// end says goodbye, and why.
func (f *frames) end(err error) {
	st := status.Convert(err)
	reason := st.Message()
	reason = strings.ToValidUTF8(reason[:min(len(reason), reasonBytesMax)], "")
	_ = f.conn.Close(closeCode(st.Code()), reason)
}

func closeCode(c codes.Code) websocket.StatusCode {
	switch c {
	case codes.OK:
		return websocket.StatusNormalClosure
	case codes.InvalidArgument:
		return websocket.StatusInvalidFramePayloadData
	case codes.ResourceExhausted:
		return websocket.StatusMessageTooBig
	case codes.PermissionDenied, codes.Unauthenticated, codes.NotFound:
		return websocket.StatusPolicyViolation
	case codes.Canceled, codes.Unavailable:
		return websocket.StatusGoingAway
	}
	return websocket.StatusInternalError
}

// keepAlive ends the connection when the client is gone or reads no more.
func (f *frames) keepAlive(ctx context.Context) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		ping, done := context.WithTimeout(ctx, pingTimeout)
		err := f.conn.Ping(ping)
		done()
		if err != nil {
			f.cancel()
			_ = f.conn.CloseNow()
			return
		}
	}
}
