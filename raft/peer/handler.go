package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-semver/semver"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	pathRaft     = "/raft"
	pathStream   = "/raft/stream/"
	pathSnapshot = "/raft/snapshot"
	pathProbing  = "/raft/probing"

	headerFrom       = "X-Server-From"
	headerVersion    = "X-Server-Version"
	headerMinVersion = "X-Min-Cluster-Version"
	headerCluster    = "X-Etcd-Cluster-Id" // net/http's spelling of X-Etcd-Cluster-ID
	headerPeerURLs   = "X-Peerurls"        // net/http's spelling of X-PeerURLs
	headerTo         = "X-Raft-To"
)

// Handler serves the paths under /raft. The server that carries it must not set
// a WriteTimeout or ReadTimeout of its own: streams are endless, and the handler
// sets the deadlines that it needs.
func (t *Transport) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(pathRaft, t.tracked(t.servePost))
	mux.HandleFunc(pathStream, t.tracked(t.serveStream))
	mux.HandleFunc(pathSnapshot, t.tracked(t.serveSnapshot))
	mux.HandleFunc(pathProbing, t.serveProbe)
	return mux
}

// tracked makes Run wait for the requests under way, and ends them when it stops.
func (t *Transport) tracked(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !t.enter() {
			http.Error(w, ErrStopped.Error(), http.StatusServiceUnavailable)
			return
		}
		defer t.work.Done()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(t.ctx, cancel)()
		serve(w, r.WithContext(ctx))
	}
}

// identify fills the headers by which a member says who it is.
func (t *Transport) identify(h http.Header) {
	h[headerFrom] = []string{hexID(t.cfg.Self)}
	h[headerVersion] = []string{t.cfg.Version}
	h[headerMinVersion] = []string{t.cfg.MinClusterVersion}
	h["X-Etcd-Cluster-ID"] = []string{hexID(t.cfg.Cluster)}
	h["X-PeerURLs"] = []string{strings.Join(t.localURLs(), ",")}
}

func (t *Transport) localURLs() []string {
	if t.cfg.LocalURLsNow != nil {
		return t.cfg.LocalURLsNow()
	}
	return t.cfg.LocalURLs
}

// compatible answers a request of the wrong method, version or cluster and
// reports whether the request may go on.
func (t *Transport) compatible(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method != method {
		w.Header().Set("Allow", method)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return false
	}
	w.Header()["X-Etcd-Cluster-ID"] = []string{hexID(t.cfg.Cluster)}
	err := t.checkVersions(r.Header)
	if err == nil && r.Header.Get(headerCluster) != hexID(t.cfg.Cluster) {
		err = ErrClusterMismatch
	}
	if err != nil {
		t.logRefusal(r, err.Error(), "version", r.Header.Get(headerVersion), "cluster", r.Header.Get(headerCluster))
		http.Error(w, err.Error(), http.StatusPreconditionFailed)
		return false
	}
	return true
}

// logRefusal warns about a request that was refused. The same refusal is logged
// once a minute: a stream is dialed ten times a second.
func (t *Transport) logRefusal(r *http.Request, reason string, more ...any) {
	from := r.Header.Get(headerFrom)
	if !t.refusals.due(from + r.URL.Path + reason) {
		return
	}
	t.log.Warn("request of another member refused", append([]any{"reason", reason,
		"from", from, "address", r.RemoteAddr, "path", r.URL.Path}, more...)...)
}

// checkVersions compares major and minor numbers both ways: the other must be
// no older than we accept, and we no older than it accepts.
func (t *Transport) checkVersions(h http.Header) error {
	theirs, theirMin := headerSemver(h, headerVersion), headerSemver(h, headerMinVersion)
	if theirs == nil || theirMin == nil || olderMinor(theirs, t.minVersion) || olderMinor(t.version, theirMin) {
		return ErrIncompatible
	}
	return nil
}

// headerSemver is nil for what is not a version; a missing one is 2.0.0.
func headerSemver(h http.Header, name string) *semver.Version {
	text := h.Get(name)
	if text == "" {
		return &semver.Version{Major: 2}
	}
	v, err := semver.NewVersion(text)
	if err != nil {
		return nil
	}
	return v
}

func olderMinor(a, b *semver.Version) bool {
	if a.Major != b.Major {
		return a.Major < b.Major
	}
	return a.Minor < b.Minor
}

// serveStream attaches a stream that another member dialed.
func (t *Transport) serveStream(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		w.Header()[headerVersion] = []string{t.cfg.Version}
	}
	if !t.compatible(w, r, http.MethodGet) {
		return
	}
	kind, from, problem := parseStreamPath(r.URL.Path)
	if problem != "" {
		http.Error(w, problem, http.StatusNotFound)
		return
	}
	if t.cfg.Receiver.Removed(from) {
		t.logRefusal(r, ErrRemoved.Error())
		http.Error(w, ErrRemoved.Error(), http.StatusGone)
		return
	}
	p := t.peer(from)
	if p == nil || !t.isPeer(p) {
		t.callerRemembered(from, callerURLs(r.Header))
		t.logRefusal(r, "error sender not found")
		http.Error(w, "error sender not found", http.StatusNotFound)
		return
	}
	if to := r.Header.Get(headerTo); to != hexID(t.cfg.Self) {
		t.logRefusal(r, ErrNotForUs.Error(), "to", to)
		http.Error(w, ErrNotForUs.Error(), http.StatusPreconditionFailed)
		return
	}
	w.WriteHeader(http.StatusOK)
	p.write(w, r, kind)
}

func (t *Transport) isPeer(p *peer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return p.kind == kindPeer
}

// parseStreamPath takes /raft/stream/<kind>/<id> apart; problem is the answer's
// text when it is not of that form.
func parseStreamPath(path string) (kind streamKind, from uint64, problem string) {
	name, id, _ := strings.Cut(strings.TrimPrefix(path, pathStream), "/")
	switch name {
	case streamMessage.String():
		kind = streamMessage
	case streamMsgApp.String():
		kind = streamMsgApp
	default:
		return 0, 0, "invalid path"
	}
	from, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return 0, 0, "invalid from"
	}
	return kind, from, ""
}

// callerURLs are the peer URLs that a request names.
func callerURLs(h http.Header) []string {
	text := h.Get(headerPeerURLs)
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// servePost takes one message.
func (t *Transport) servePost(w http.ResponseWriter, r *http.Request) {
	if !t.compatible(w, r, http.MethodPost) {
		return
	}
	t.rememberPoster(r.Header)
	body := newTimedBody(w, r, t.cfg.ReadTimeout)
	m, n, err := decodeBody(body, r.ContentLength)
	body.done()
	if err != nil {
		t.countReceived(headerID(r.Header), n, err)
		t.log.Warn("posted message not read", "from", r.Header.Get(headerFrom), "error", err)
		text := "error reading raft message"
		if errors.Is(err, ErrMalformed) {
			text = "error unmarshalling raft message"
		}
		http.Error(w, text, http.StatusBadRequest)
		return
	}
	err = t.receive(r.Context(), m)
	t.countReceived(m.GetFrom(), n, err)
	if err != nil {
		t.log.Debug("posted message not taken", "member", hexID(m.GetFrom()), "type", m.GetType().String(), "error", err)
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// decodeBody reads a message that is the whole body.
func decodeBody(body io.Reader, announced int64) (*raftpb.Message, int, error) {
	if announced > messageBytesMax {
		return nil, 0, ErrTooLarge
	}
	return decodeWhole(body, messageBytesMax)
}

// rememberPoster keeps the sender of a post as a remote if nobody knows it.
func (t *Transport) rememberPoster(h http.Header) {
	from := headerID(h)
	if from != 0 && !t.cfg.Receiver.Removed(from) {
		t.callerRemembered(from, callerURLs(h))
	}
}

// headerID is the sender that a request names; 0 when it names none.
func headerID(h http.Header) uint64 {
	id, err := strconv.ParseUint(h.Get(headerFrom), 16, 64)
	if err != nil {
		return 0
	}
	return id
}

func (t *Transport) countReceived(from uint64, n int, err error) {
	p := t.peer(from)
	if p == nil {
		return
	}
	p.count.receivedBytes.Add(uint64(n))
	if err != nil {
		p.count.receiveFailures.Add(1)
	}
}

// admit refuses messages of removed members and for others.
func (t *Transport) admit(m *raftpb.Message) error {
	if t.cfg.Receiver.Removed(m.GetFrom()) {
		return fmt.Errorf("message from %x: %w", m.GetFrom(), ErrRemoved)
	}
	if m.GetTo() != t.cfg.Self {
		return fmt.Errorf("message to %x: %w", m.GetTo(), ErrNotForUs)
	}
	return nil
}

// refuse answers a message that was not taken. The sender takes 403 to mean
// that it was removed, so nothing else may be answered by it.
func refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, ErrRemoved) {
		http.Error(w, "cannot process message from removed member", http.StatusForbidden)
		return
	}
	http.Error(w, "error processing raft message", http.StatusInternalServerError)
}

// serveProbe answers at once; the sender measures how long that took.
func (t *Transport) serveProbe(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(struct { // a prober that left needs no answer
		OK  bool
		Now time.Time
	}{true, time.Now()})
}

// timedBody is a request body of which every read must make progress in time,
// and which ends when the transport stops.
type timedBody struct {
	r       *http.Request
	control *http.ResponseController
	timeout time.Duration
	release func() bool
}

func newTimedBody(w http.ResponseWriter, r *http.Request, timeout time.Duration) timedBody {
	b := timedBody{r: r, control: http.NewResponseController(w), timeout: timeout}
	b.release = context.AfterFunc(r.Context(), func() { _ = b.control.SetReadDeadline(time.Unix(1, 0)) })
	return b
}

func (b timedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.timeout)) // a writer without deadlines still reads
	// Checked after the deadline is set: an end that comes later sets it anew.
	if err := b.r.Context().Err(); err != nil {
		return 0, err
	}
	return b.r.Body.Read(p)
}

// done lifts the deadline, which would else count as the sender hanging up. It
// may be called again, and must be before the handler returns.
func (b timedBody) done() {
	if b.release() {
		_ = b.control.SetReadDeadline(time.Time{})
	}
}
