package cluster

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, programs written for etcd do not recognise the error that they
// handle, or one bad request takes the server down.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3})
	e.mustPut("a", "1")
	rev := e.mustPut("a", "2")
	if _, err := e.client.Compact(e.ctx, rev, true); err != nil {
		t.Fatal(err)
	}
	for _, test := range badInputs(rev) {
		t.Run(test.name, func(t *testing.T) {
			for _, m := range e.Members {
				err := test.do(e, e.at(m))
				got := status.Convert(err)
				if got.Code() != test.code || !strings.HasPrefix(got.Message(), test.text) || (!test.prefix && got.Message() != test.text) {
					t.Errorf("at %s: %s %q; want %s %q", m.Name, got.Code(), got.Message(), test.code, test.text)
				}
			}
			e.mustPut("goes-on", test.name)
		})
	}
	e.checkEqual()
	for _, m := range e.Members {
		if m.PID() == 0 {
			t.Errorf("%s ended", m.Name)
		}
	}
}

type badInput struct {
	name   string
	do     func(e *env, c *client.Client) error
	code   codes.Code
	text   string
	prefix bool // only the beginning of the text is fixed
}

func badInputs(compacted int64) []badInput {
	put := func(r *pb.PutRequest) func(*env, *client.Client) error {
		return func(e *env, c *client.Client) error { _, err := c.KV.Put(e.ctx, r); return err }
	}
	get := func(key string, o ...client.Option) func(*env, *client.Client) error {
		return func(e *env, c *client.Client) error { _, err := c.Get(e.ctx, key, o...); return err }
	}
	txn := func(ops ...any) func(*env, *client.Client) error {
		return func(e *env, c *client.Client) error {
			_, err := c.Txn(e.ctx, client.Txn{Then: client.Ops(ops...)})
			return err
		}
	}
	var many []any
	for i := range 1000 {
		many = append(many, client.PutRequest(fmt.Sprint("many", i), "x"))
	}
	const noKey = "etcdserver: key is not provided"
	return []badInput{
		{name: "value-of-10MB", do: put(client.PutRequest("big", strings.Repeat("x", 10<<20))), code: codes.ResourceExhausted, text: "grpc: received message larger than max (", prefix: true},
		{name: "value-over-the-limit", do: put(client.PutRequest("big", strings.Repeat("x", 1572864))), code: codes.InvalidArgument, text: "etcdserver: request is too large"},
		{name: "put-without-key", do: put(&pb.PutRequest{Value: []byte("x")}), code: codes.InvalidArgument, text: noKey},
		{name: "get-without-key", do: func(e *env, c *client.Client) error { _, err := c.KV.Range(e.ctx, &pb.RangeRequest{}); return err }, code: codes.InvalidArgument, text: noKey},
		{name: "delete-without-key", do: func(e *env, c *client.Client) error {
			_, err := c.KV.DeleteRange(e.ctx, &pb.DeleteRangeRequest{})
			return err
		}, code: codes.InvalidArgument, text: noKey},
		{name: "txn-of-1000", do: txn(many...), code: codes.InvalidArgument, text: "etcdserver: too many operations in txn request"},
		{name: "txn-with-a-key-twice", do: txn(client.PutRequest("x", "1"), client.PutRequest("x", "2")), code: codes.InvalidArgument, text: "etcdserver: duplicate key given in txn request"},
		{name: "txn-without-key", do: txn(&pb.PutRequest{}), code: codes.InvalidArgument, text: noKey},
		{name: "value-with-ignore-value", do: put(client.PutRequest("a", "x", client.IgnoreValue())), code: codes.InvalidArgument, text: "etcdserver: value is provided"},
		{name: "ignore-value-of-nothing", do: put(client.PutRequest("nothing", "", client.IgnoreValue())), code: codes.InvalidArgument, text: "etcdserver: key not found"},
		{name: "lease-with-ignore-lease", do: put(client.PutRequest("a", "x", client.IgnoreLease(), client.Lease(7))), code: codes.InvalidArgument, text: "etcdserver: lease is provided"},
		{name: "unknown-lease", do: put(client.PutRequest("a", "x", client.Lease(12345))), code: codes.NotFound, text: "etcdserver: requested lease not found"},
		{name: "revoke-of-unknown-lease", do: func(e *env, c *client.Client) error { _, err := c.Revoke(e.ctx, 12345); return err }, code: codes.NotFound, text: "etcdserver: requested lease not found"},
		{name: "lease-for-ever", do: func(e *env, c *client.Client) error { _, err := c.Grant(e.ctx, 9000000001); return err }, code: codes.OutOfRange, text: "etcdserver: too large lease TTL"},
		{name: "get-of-compacted", do: get("a", client.Revision(compacted-1)), code: codes.OutOfRange, text: "etcdserver: mvcc: required revision has been compacted"},
		{name: "get-of-the-future", do: get("a", client.Revision(compacted+100000)), code: codes.OutOfRange, text: "etcdserver: mvcc: required revision is a future revision"},
		{name: "watch-of-compacted", do: watchCompacted(compacted), code: codes.OutOfRange, text: "etcdserver: mvcc: required revision has been compacted"},
		{name: "compact-again", do: func(e *env, c *client.Client) error { _, err := c.Compact(e.ctx, compacted, false); return err }, code: codes.OutOfRange, text: "etcdserver: mvcc: required revision has been compacted"},
		{name: "unknown-sort", do: func(e *env, c *client.Client) error {
			_, err := c.KV.Range(e.ctx, &pb.RangeRequest{Key: []byte("a"), SortOrder: 99})
			return err
		}, code: codes.InvalidArgument, text: "etcdserver: invalid sort option"},
		{name: "unknown-member", do: func(e *env, c *client.Client) error {
			_, err := c.Cluster.MemberRemove(e.ctx, &pb.MemberRemoveRequest{ID: 4711})
			return err
		}, code: codes.NotFound, text: "etcdserver: member not found"},
		{name: "member-without-url", do: func(e *env, c *client.Client) error {
			_, err := c.Cluster.MemberAdd(e.ctx, &pb.MemberAddRequest{})
			return err
		}, code: codes.InvalidArgument, text: "etcdserver: given member URLs are invalid"},
	}
}

// watchCompacted checks the two answers on the wire and gives the error that
// the client makes of them.
func watchCompacted(compacted int64) func(*env, *client.Client) error {
	return func(e *env, c *client.Client) error {
		ctx, cancel := e.brief(waitMax)
		defer cancel()
		w := c.Watch(ctx, "a", client.Revision(compacted-1))
		r, err := w.Next()
		if err == nil {
			return fmt.Errorf("the watch gave %v", r)
		}
		if r == nil || r.CompactRevision != compacted {
			return fmt.Errorf("the watch names %v as the revision to go on from, not %d (%w)", r, compacted, err)
		}
		return err
	}
}
