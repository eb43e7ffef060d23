package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

const (
	requestMax  = 1500 * time.Millisecond // how long a client waits for an answer
	keysAtOnce  = 6
	keysLive    = 1500 * time.Millisecond // then the clients go on to other keys, so that no key's history gets long
	leaseTTLMin = 2                       // seconds
)

// endpoint is one member as clients see it.
type endpoint struct {
	conn *grpc.ClientConn
	life atomic.Int64 // odd while the process serves; the fault injector moves it on
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 300 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
}

// workload is what the clients share.
type workload struct {
	recorder  *Recorder
	endpoints []*endpoint
	values    atomic.Int64

	mu     sync.Mutex
	latest map[string]KV // guarded by mu: what was last seen of a key, for comparisons
	newest int64         // guarded by mu: newest revision seen
}

func (w *workload) learn(a *Answer, r *Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.newest = max(w.newest, a.Revision)
	if r.Revision != 0 {
		return
	}
	for i, kv := range a.Reads {
		w.latest[r.Reads[i]] = kv
	}
	if len(r.Writes) > 0 && a.Succeeded && len(a.Prev) == len(r.Writes) {
		for i, write := range r.Writes {
			kv := KV{}
			if !write.Delete {
				kv = KV{Value: write.Value, Mod: a.Revision, Version: a.Prev[i].Version + 1}
			}
			w.latest[write.Key] = kv
		}
	}
}

func (w *workload) last(key string) (kv KV, newest int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest[key], w.newest
}

// client sends one request at a time.
type client struct {
	*workload
	id     int
	random *rand.Rand
	lease  int64 // granted last
}

// run sends requests until ctx ends. It always finishes the one that is under way.
func (c *client) run(ctx context.Context) {
	member := c.random.IntN(len(c.endpoints))
	for ctx.Err() == nil {
		if c.random.IntN(12) == 0 {
			member = c.random.IntN(len(c.endpoints))
		}
		if c.random.IntN(25) == 0 {
			c.grant(member)
		}
		o := c.do(member, c.choose())
		if o.Outcome == Unknown {
			member = c.random.IntN(len(c.endpoints))
			wait(ctx, time.Duration(c.random.IntN(50))*time.Millisecond)
		}
	}
}

// wait ends early with ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// keyAt is the n-th of the keys in use at a time.
func keyAt(now int64, n int) string { return fmt.Sprintf("k%03d/%d", now/int64(keysLive), n) }

func (c *client) write(key string) Write {
	w := Write{Key: key, Value: fmt.Sprintf("v%d", c.values.Add(1))}
	if c.lease != 0 && c.random.IntN(8) == 0 {
		w.Lease = c.lease
	}
	return w
}

// choose draws the next request.
func (c *client) choose() Request {
	now, n := c.recorder.Now(), c.random.IntN(keysAtOnce)
	key, other := keyAt(now, n), keyAt(now, (n+1+c.random.IntN(keysAtOnce-1))%keysAtOnce)
	seen, newest := c.last(key)
	switch draw := c.random.IntN(125); {
	case draw >= 115:
		return c.extend(now)
	case draw >= 107:
		return c.transfer(now)
	case draw >= 100:
		return c.audit(now)
	case draw < 30:
		return Request{Writes: []Write{c.write(key)}}
	case draw < 50:
		return Request{Reads: []string{key}}
	case draw < 56:
		var all []string
		for i := range keysAtOnce {
			all = append(all, keyAt(now, i))
		}
		return Request{Reads: all}
	case draw < 64:
		return Request{Reads: []string{key}, Serializable: true}
	case draw < 69:
		return Request{Reads: []string{key}, Revision: max(1, newest-c.random.Int64N(150)), Serializable: c.random.IntN(2) == 0}
	case draw < 76:
		return Request{Writes: []Write{{Key: key, Delete: true}}}
	case draw < 92:
		return Request{Compares: []Compare{c.compare(key, seen)}, Writes: []Write{c.write(key)}, Reads: []string{key}}
	case draw < 98 || c.lease == 0:
		second := c.write(other)
		if c.random.IntN(3) == 0 {
			second = Write{Key: other, Delete: true}
		}
		return Request{Compares: []Compare{c.compare(key, seen)}, Writes: []Write{c.write(key), second}, Reads: []string{key, other}}
	}
	revoke := c.lease
	c.lease = 0
	return Request{Revoke: revoke}
}

func (c *client) compare(key string, seen KV) Compare {
	switch c.random.IntN(3) {
	case 0:
		if seen.Version > 0 {
			return Compare{Key: key, Target: OnValue, Value: seen.Value}
		}
		return Compare{Key: key, Target: OnVersion}
	case 1:
		return Compare{Key: key, Target: OnVersion, Number: seen.Version}
	}
	return Compare{Key: key, Target: OnMod, Number: seen.Mod}
}

// grant gets a new lease for later writes.
func (c *client) grant(member int) {
	ttl := int64(leaseTTLMin)
	if c.random.IntN(2) == 0 {
		ttl = 60
	}
	if l := c.grantFor(member, ttl); l != nil {
		c.lease = l.ID
	}
}

// grantFor asks for a lease; nil: nobody knows whether it is there. It is recorded in any case.
func (c *client) grantFor(member int, ttl int64) *Lease {
	id := int64(c.id+1)<<32 | c.values.Add(1)
	l := c.recorder.AddLease(Lease{ID: id, Call: c.recorder.Now(), TTL: time.Duration(ttl) * time.Second})
	ctx, cancel := context.WithTimeout(context.Background(), requestMax)
	defer cancel()
	if _, err := pb.NewLeaseClient(c.endpoints[member].conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl}); err != nil {
		return nil
	}
	return l
}

// do sends a request and records what came of it.
func (c *client) do(member int, r Request) *Operation {
	e := c.endpoints[member]
	o := &Operation{Client: c.id, Member: member, Request: r, Life: int(e.life.Load()), Call: c.recorder.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), requestMax)
	answer, err := send(ctx, e.conn, &o.Request)
	cancel()
	o.Return = c.recorder.Now()
	if int(e.life.Load()) != o.Life || o.Life%2 == 0 {
		o.Life = -1
	}
	o.Answer = answer
	if err != nil {
		o.Outcome = outcomeOf(err)
		o.Answer.Failure = status.Convert(err).Message()
	} else {
		c.learn(&o.Answer, &o.Request)
	}
	c.recorder.Add(o)
	return o
}

// outcomeOf tells errors that come instead of an effect from those that leave it open.
func outcomeOf(err error) Outcome {
	if errors.Is(err, errShape) {
		return Done
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.FailedPrecondition, codes.ResourceExhausted:
		return Refused
	}
	return Unknown
}

// errShape: the answer does not have the parts that were asked for.
var errShape = errors.New("answer of the wrong shape")

// send translates a request to the call that a client would make.
func send(ctx context.Context, conn *grpc.ClientConn, r *Request) (Answer, error) {
	kv := pb.NewKVClient(conn)
	switch {
	case r.Revoke != 0:
		a, err := pb.NewLeaseClient(conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: r.Revoke})
		return Answer{Revision: a.GetHeader().GetRevision(), Succeeded: true}, err
	case len(r.Compares) > 0:
		a, err := kv.Txn(ctx, txnOf(r))
		if err != nil {
			return Answer{}, err
		}
		return txnAnswer(r, a)
	case len(r.Writes) == 0:
		a, err := kv.Range(ctx, rangeOf(r))
		if err != nil {
			return Answer{}, err
		}
		reads, err := pick(a, r.Reads)
		return Answer{Revision: a.Header.Revision, Succeeded: true, Reads: reads}, err
	case r.Writes[0].Delete:
		a, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(r.Writes[0].Key), PrevKv: true})
		if err != nil {
			return Answer{}, err
		}
		return Answer{Revision: a.Header.Revision, Succeeded: true, Prev: []KV{firstOf(a.PrevKvs)}}, nil
	}
	a, err := kv.Put(ctx, putOf(r.Writes[0]))
	if err != nil {
		return Answer{}, err
	}
	return Answer{Revision: a.Header.Revision, Succeeded: true, Prev: []KV{kvOf(a.PrevKv)}}, nil
}

func rangeOf(r *Request) *pb.RangeRequest {
	q := &pb.RangeRequest{Key: []byte(r.Reads[0]), Revision: r.Revision, Serializable: r.Serializable}
	if last := r.Reads[len(r.Reads)-1]; len(r.Reads) > 1 {
		q.RangeEnd = []byte(last + "\x00")
	}
	return q
}

// pick orders the keys of an answer as they were asked for.
func pick(a *pb.RangeResponse, keys []string) ([]KV, error) {
	reads := make([]KV, len(keys))
	found := 0
	for _, kv := range a.Kvs {
		for i, key := range keys {
			if key == string(kv.Key) {
				reads[i] = kvOf(kv)
				found++
			}
		}
	}
	if found != len(a.Kvs) || int64(found) != a.Count || a.More {
		return nil, fmt.Errorf("%w: %d of %d keys, count %d", errShape, found, len(a.Kvs), a.Count)
	}
	return reads, nil
}

func putOf(w Write) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(w.Key), Value: []byte(w.Value), Lease: w.Lease, PrevKv: true}
}

func txnOf(r *Request) *pb.TxnRequest {
	q := &pb.TxnRequest{}
	for _, c := range r.Compares {
		q.Compare = append(q.Compare, compareOf(c))
	}
	for _, w := range r.Writes {
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putOf(w)}}
		if w.Delete {
			op = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(w.Key), PrevKv: true}}}
		}
		q.Success = append(q.Success, op)
	}
	for _, key := range r.Reads {
		q.Failure = append(q.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}})
	}
	return q
}

func compareOf(c Compare) *pb.Compare {
	p := &pb.Compare{Key: []byte(c.Key), Result: pb.Compare_EQUAL}
	switch c.Target {
	case OnValue:
		p.Target, p.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(c.Value)}
	case OnVersion:
		p.Target, p.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: c.Number}
	case OnMod:
		p.Target, p.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: c.Number}
	}
	return p
}

func txnAnswer(r *Request, a *pb.TxnResponse) (Answer, error) {
	out := Answer{Revision: a.Header.Revision, Succeeded: a.Succeeded}
	want := len(r.Reads)
	if a.Succeeded {
		want = len(r.Writes)
	}
	if len(a.Responses) != want {
		return out, fmt.Errorf("%w: %d answers to %d operations", errShape, len(a.Responses), want)
	}
	for _, one := range a.Responses {
		switch {
		case one.GetResponsePut() != nil:
			out.Prev = append(out.Prev, kvOf(one.GetResponsePut().PrevKv))
		case one.GetResponseDeleteRange() != nil:
			out.Prev = append(out.Prev, firstOf(one.GetResponseDeleteRange().PrevKvs))
		case one.GetResponseRange() != nil:
			out.Reads = append(out.Reads, firstOf(one.GetResponseRange().Kvs))
		}
	}
	return out, nil
}

func firstOf(all []*mvccpb.KeyValue) KV {
	if len(all) == 0 {
		return KV{}
	}
	return kvOf(all[0])
}

func kvOf(kv *mvccpb.KeyValue) KV {
	if kv == nil {
		return KV{}
	}
	return KV{Value: string(kv.Value), Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Lease: kv.Lease}
}
