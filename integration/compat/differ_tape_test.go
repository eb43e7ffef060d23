package compat

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// tape is one watch stream of one server, and what has come over it, by watcher. Which responses events come in is
// chance (how many of the past one response holds, and the revision in its header); what each watcher is told, in
// order, is not.
type tape struct {
	stream grpc.ClientStream
	cancel context.CancelFunc

	mu       sync.Mutex
	told     map[int64][]remark // guarded by mu: by watch id
	alive    map[int64]bool     // guarded by mu: watchers created and not canceled
	answers  int                // guarded by mu: answers to create requests
	progress []int64            // guarded by mu: revisions of progress answers
	last     map[int64]int64    // guarded by mu: the revision of each watcher's last event
	end      string             // guarded by mu: how the stream ended; "" = it has not
	// compacted: a watcher was canceled since what it asked for was compacted. From then on etcd answers no progress
	// request of the stream, however long one asks; Kvorum does. Guarded by mu.
	compacted bool
}

// remark is what a watcher was told, and what is wrong about it.
type remark struct {
	message proto.Message
	wrong   string
}

// tape finds a stream of the server, or opens it.
func (p *player) tape(s step) *tape {
	if t := p.tapes[s.stream]; t != nil {
		return t
	}
	ctx, cancel := context.WithCancel(p.outgoing(s))
	t := &tape{cancel: cancel, told: map[int64][]remark{}, alive: map[int64]bool{}, last: map[int64]int64{}}
	p.tapes[s.stream] = t
	var err error
	t.stream, err = p.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, watchMethod)
	if err != nil {
		t.end = err.Error()
		return t
	}
	go t.read()
	return t
}

// read runs until the stream ends.
func (t *tape) read() {
	for {
		var data []byte
		if err := t.stream.RecvMsg(&data); err != nil {
			s := status.Convert(err)
			t.mu.Lock()
			t.end = fmt.Sprintf("%s %q", s.Code(), normalText(s.Message()))
			t.mu.Unlock()
			return
		}
		answer := &pb.WatchResponse{}
		if err := proto.Unmarshal(data, answer); err != nil {
			answer.CancelReason = fmt.Sprintf("cannot be read: %v", err)
		}
		t.mu.Lock()
		t.write(answer)
		t.mu.Unlock()
	}
}

// write notes one response. The caller holds mu.
func (t *tape) write(r *pb.WatchResponse) {
	id := r.WatchId
	t.compacted = t.compacted || r.CompactRevision != 0
	switch {
	case r.Created || r.Canceled:
		if r.Created {
			t.answers++
			t.alive[id] = !r.Canceled
			t.last[id] = 0
		} else {
			delete(t.alive, id)
		}
		t.told[id] = append(t.told[id], remark{message: r})
	case len(r.Events) == 0:
		t.progress = append(t.progress, r.Header.Revision)
	default:
		t.writeEvents(r)
	}
}

// writeEvents notes events one by one, and what no server may do: an event twice or out of order, a header that is older
// than what it brings.
func (t *tape) writeEvents(r *pb.WatchResponse) {
	id := r.WatchId
	for _, event := range r.Events {
		line := remark{message: event}
		if event.Kv.ModRevision < t.last[id] {
			line.wrong += " COMES AFTER A LATER ONE"
		}
		if r.Header.Revision < event.Kv.ModRevision {
			line.wrong += " IS NEWER THAN ITS HEADER"
		}
		t.last[id] = event.Kv.ModRevision
		t.told[id] = append(t.told[id], line)
	}
}

func oneLine(m proto.Message) string {
	return prototext.MarshalOptions{EmitUnknown: true}.Format(m)
}

// text is what is compared: for each watcher what it was told, and how the stream ended.
func (t *tape) text(ids *idTable) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(t.told)) {
		fmt.Fprintf(&b, "watcher %d:\n", id)
		for _, line := range t.told[id] {
			message := proto.Clone(line.message)
			normalise(message, ids)
			b.WriteString("  " + oneLine(message) + line.wrong + "\n")
		}
	}
	b.WriteString(t.end)
	return b.String()
}

// forget drops what has been compared.
func (t *tape) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = map[int64][]remark{}
}

// tapeState reads something under the lock.
func tapeState[V any](t *tape, read func() V) V {
	t.mu.Lock()
	defer t.mu.Unlock()
	return read()
}

// watch sends a step to its stream and waits until the server has taken notice, so that what the step does comes
// before what later steps do.
func (p *player) watch(s step, revision int64) {
	t := p.tape(s)
	if tapeState(t, func() bool { return t.end != "" }) {
		return
	}
	request := s.adapt(&p.ids, revision)
	message := &pb.WatchRequest{}
	malformed := proto.Unmarshal(request, message) != nil
	answers := tapeState(t, func() int { return t.answers })
	if err := t.stream.SendMsg(&request); err != nil {
		return // the reader notes why
	}
	poll(watchMax, func() bool {
		return tapeState(t, func() bool {
			create := message.GetCreateRequest() != nil && t.answers == answers
			cancel := message.GetCancelRequest() != nil && t.alive[message.GetCancelRequest().WatchId]
			return t.end != "" || !malformed && !create && !cancel
		})
	})
}

// watchMax bounds the wait for a watcher's answers; quietMax that for an answer which may never come, because a
// watcher of the stream waits for a revision that does not exist yet.
const (
	watchMax = 3 * time.Second
	quietMax = 200 * time.Millisecond
)

// ask sends a progress request.
func (t *tape) ask() {
	request := encode(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	_ = t.stream.SendMsg(&request) // an error ends the stream, which the reader notes
}

// answered is the revision of the first progress answer since there were had of them; 0 without one.
func (t *tape) answered(had int) int64 {
	return tapeState(t, func() int64 {
		if len(t.progress) > had {
			return t.progress[had]
		}
		return 0
	})
}

// settle waits until the streams have nothing more to say: it asks both for progress until both have answered, or none
// has for a while. It returns the revisions that the answers name, 0 without one.
func settle(e, k *tape) (etcd, kvorum int64) {
	had := [2]int{}
	for i, t := range []*tape{e, k} {
		had[i] = tapeState(t, func() int { return len(t.progress) })
		if tapeState(t, func() bool { return t.end != "" || len(t.alive) == 0 }) {
			return 0, 0
		}
	}
	began := time.Now()
	poll(watchMax, func() bool {
		etcd, kvorum = e.answered(had[0]), k.answered(had[1])
		if etcd == 0 {
			e.ask()
		}
		if kvorum == 0 {
			k.ask()
		}
		if tapeState(e, func() bool { return e.compacted }) {
			return time.Since(began) > quietMax
		}
		neither := etcd == 0 && kvorum == 0
		return etcd != 0 && kvorum != 0 || neither && time.Since(began) > quietMax
	})
	if tapeState(e, func() bool { return e.compacted }) {
		return 0, 0
	}
	return etcd, kvorum
}

// compareTapes settles streams of both servers and compares them; a difference may still be on its way, so it counts only
// when it stays.
func (p *pair) compareTapes(streams func(int) bool) *difference {
	for _, stream := range slices.Sorted(maps.Keys(p.etcd.tapes)) {
		if !streams(stream) {
			continue
		}
		e, k := p.etcd.tapes[stream], p.kvorum.tapes[stream]
		progressE, progressK := settle(e, k)
		poll(watchMax, func() bool { return e.text(&p.etcd.ids) == k.text(&p.kvorum.ids) })
		a := fmt.Sprintf("%s\nprogress at %d\n", e.text(&p.etcd.ids), progressE)
		b := fmt.Sprintf("%s\nprogress at %d\n", k.text(&p.kvorum.ids), progressK)
		if a != b {
			return &difference{step: step{method: watchMethod, stream: stream}, etcd: a, kvorum: b}
		}
		e.forget()
		k.forget()
		if tapeState(e, func() bool { return e.end != "" || e.compacted }) {
			p.closeStream(stream)
		}
	}
	return nil
}

// closeStream ends a stream; the next step on it opens another.
func (p *pair) closeStream(stream int) {
	for _, player := range p.both() {
		player.tapes[stream].cancel()
		delete(player.tapes, stream)
	}
}
