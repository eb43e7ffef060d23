package v2http

import (
	"context"
	"errors"
	"net/http"
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
	from := clientOf(r)
	if q.waits() {
		h.watch(w, from, q)
		return
	}
	a := h.do(from, q, make([]byte, 0, 256))
	a.write(w)
}

// client is who makes a request, as far as the request says.
type client struct {
	ctx            context.Context // of the request
	name, password string
	named          bool
}

func clientOf(r *http.Request) client {
	name, password, named := r.BasicAuth()
	return client{r.Context(), name, password, named}
}

// do carries out a request that does not wait for a change. The body of the
// reply is appended to buf.
func (h *Handler) do(from client, q *request, buf []byte) reply {
	if q.reads() {
		return h.get(from, q, buf)
	}
	return h.change(from, q, buf)
}

// callerTries is how often a caller is looked up anew because users have
// changed meanwhile.
const callerTries = 3

// asCaller does something in the name of whoever makes a request. What was
// refused because users have changed since has not been done: it is tried again.
func (h *Handler) asCaller(from client, do func(state.Caller) error) error {
	for try := 1; ; try++ {
		c, err := h.caller(from)
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
func (h *Handler) caller(from client) (state.Caller, error) {
	if !h.machine.AuthEnabled() {
		return state.Caller{}, nil
	}
	if !from.named {
		return state.Caller{AuthRevision: h.machine.AuthStatus().Revision}, nil
	}
	c, err := h.login(from.ctx, from.name, from.password)
	if errors.Is(err, state.ErrAuthNotEnabled) {
		return state.Caller{}, nil // turned off this moment
	}
	return c, err
}

func (h *Handler) get(from client, q *request, buf []byte) reply {
	var a *v2keys.Answer
	err := h.asCaller(from, func(c state.Caller) (err error) {
		a, err = h.read(from.ctx, q, c)
		return err
	})
	h.count.read(q.recursive, err)
	if err != nil {
		return problemOf(err).reply(buf)
	}
	return h.reply(a, http.StatusOK, false, buf)
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

func (h *Handler) change(from client, q *request, buf []byte) reply {
	var a *v2keys.Answer
	err := h.asCaller(from, func(c state.Caller) (err error) {
		a, err = h.propose(from.ctx, q, c)
		return err
	})
	h.count.changed(q.change.Method, err)
	if err != nil {
		return problemOf(err).reply(buf)
	}
	status := http.StatusOK
	if a.Prev == nil && !a.Action.Removes() {
		status = http.StatusCreated
	}
	return h.reply(a, status, q.noValue && !a.Action.Removes(), buf)
}

// propose makes one raft command of a write and waits for its answer.
func (h *Handler) propose(ctx context.Context, q *request, c state.Caller) (*v2keys.Answer, error) {
	command := q.command(time.Now(), h.member.NextLeaseID)
	if err := h.member.CheckV2(ctx); err != nil {
		return nil, err
	}
	if cost := state.V2Cost(command); cost > 0 {
		if err := h.member.CheckQuota(int(cost)); err != nil {
			return nil, err
		}
	}
	result, err := h.member.ProposeAs(ctx, c, &pb.InternalRaftRequest{V2: command})
	if err != nil {
		return nil, err
	}
	return result.Response.(*v2keys.Answer), nil
}

// reply is what a request came to; short leaves the nodes out.
func (h *Handler) reply(a *v2keys.Answer, status int, short bool, buf []byte) reply {
	if short {
		buf = append(append(append(buf, `{"action":"`...), a.Action.String()...), "\"}\n"...)
	} else {
		buf = appendAnswer(buf, a, time.Now())
	}
	raftIndex, raftTerm := h.member.LogPosition()
	return reply{status: status, index: uint64(a.Index), hasRaft: true, raftIndex: raftIndex, raftTerm: raftTerm, body: buf}
}
