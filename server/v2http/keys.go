package v2http

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// serveKeys serves /v2/keys.
func (h *Handler) serveKeys(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		notAllowed(w, "HEAD,GET,PUT,POST,DELETE")
		return
	}
	h.answerHeader(w)
	q, wrong := parse(r)
	if wrong != nil {
		wrong.write(w)
		return
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case read && q.wait && !q.quorum: // a quorum read never waits for a change
		h.watch(w, r, q)
	case read:
		h.get(w, r, q)
	default:
		h.change(w, r, q)
	}
}

// callerTries is how often a caller is looked up anew because users have
// changed meanwhile.
const callerTries = 3

// asCaller does something in the name of whoever makes a request. What was
// refused because users have changed since has not been done: it is tried again.
func (h *Handler) asCaller(r *http.Request, do func(state.Caller) error) error {
	for try := 1; ; try++ {
		c, err := h.caller(r)
		if err == nil {
			err = do(c)
		}
		if try == callerTries || !errors.Is(err, state.ErrAuthOldRevision) {
			return err
		}
	}
}

// caller is who makes a request: the user of its basic authentication, or
// nobody. With auth off it is always nobody.
func (h *Handler) caller(r *http.Request) (state.Caller, error) {
	if !h.machine.AuthEnabled() {
		return state.Caller{}, nil
	}
	name, password, given := r.BasicAuth()
	if !given {
		return state.Caller{AuthRevision: h.machine.AuthStatus().Revision}, nil
	}
	c, err := h.login(r.Context(), name, password)
	if errors.Is(err, state.ErrAuthNotEnabled) {
		return state.Caller{}, nil // turned off this moment
	}
	return c, err
}

func (h *Handler) get(w http.ResponseWriter, r *http.Request, q *request) {
	var a *v2keys.Answer
	err := h.asCaller(r, func(c state.Caller) (err error) {
		a, err = h.read(r.Context(), q, c)
		return err
	})
	h.count.read(err)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	h.answer(w, a, http.StatusOK, false)
}

// read gives a node as it is at one revision. The permission is looked at
// before and after, so that it is no older than what was read.
func (h *Handler) read(ctx context.Context, q *request, c state.Caller) (*v2keys.Answer, error) {
	if q.quorum {
		if err := h.member.ReadBarrier(ctx); err != nil {
			return nil, err
		}
	}
	if err := h.machine.CheckV2Read(c, q.path, q.recursive); err != nil {
		return nil, err
	}
	a, err := mvcc.Look(h.store, func(p mvcc.Picture) (*v2keys.Answer, error) {
		n, err := v2keys.Get(p, q.path, q.recursive)
		if err != nil {
			return nil, err
		}
		return &v2keys.Answer{Action: v2keys.ActionGet, Node: n, Index: p.Revision()}, nil
	})
	if denied := h.machine.CheckV2Read(c, q.path, q.recursive); denied != nil {
		return nil, denied
	}
	return a, err
}

func (h *Handler) change(w http.ResponseWriter, r *http.Request, q *request) {
	var a *v2keys.Answer
	err := h.asCaller(r, func(c state.Caller) (err error) {
		a, err = h.propose(r, q, c)
		return err
	})
	h.count.changed(q.change.Method, err)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	status := http.StatusOK
	if a.Prev == nil && !a.Action.Removes() {
		status = http.StatusCreated
	}
	h.answer(w, a, status, q.noValue && !a.Action.Removes())
}

// propose makes one raft command of a write and waits for its answer.
func (h *Handler) propose(r *http.Request, q *request, c state.Caller) (*v2keys.Answer, error) {
	command := q.command(r.Method, time.Now(), h.member.NextLeaseID)
	if err := h.member.CheckV2(r.Context()); err != nil {
		return nil, err
	}
	if cost := state.V2Cost(command); cost > 0 {
		if err := h.member.CheckQuota(int(cost)); err != nil {
			return nil, err
		}
	}
	result, err := h.member.ProposeAs(r.Context(), c, &pb.InternalRaftRequest{V2: command})
	if err != nil {
		return nil, err
	}
	return result.Response.(*v2keys.Answer), nil
}

// answer writes what a request came to.
func (h *Handler) answer(w http.ResponseWriter, a *v2keys.Answer, status int, short bool) {
	h.indexHeader(w, a.Index)
	var b []byte
	if short {
		b = append(append(append(b, `{"action":"`...), a.Action.String()...), "\"}\n"...)
	} else {
		b = appendAnswer(make([]byte, 0, 256), a, time.Now())
	}
	w.WriteHeader(status)
	_, _ = w.Write(b) // the reader has gone: nothing to tell it
}

// indexHeader sets the headers of an answer on keys.
func (h *Handler) indexHeader(w http.ResponseWriter, index mvcc.Revision) {
	raftIndex, raftTerm := h.member.LogPosition()
	header := w.Header()
	setJSON(header)
	values := []string{strconv.FormatInt(int64(index), 10), strconv.FormatUint(raftIndex, 10), strconv.FormatUint(raftTerm, 10)}
	header["X-Etcd-Index"] = values[0:1:1]
	header["X-Raft-Index"] = values[1:2:2]
	header["X-Raft-Term"] = values[2:3:3]
}
