package compat

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// wireError is an error as clients match it: code and exact text, and the client library's own value where it has one.
type wireError struct {
	code codes.Code
	text string
	is   error // nil: not a value of rpctypes
}

var (
	compacted      = wireError{codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted", rpctypes.ErrCompacted}
	futureRevision = wireError{codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision", rpctypes.ErrFutureRev}
	emptyKey       = wireError{codes.InvalidArgument, "etcdserver: key is not provided", rpctypes.ErrEmptyKey}
	keyNotFound    = wireError{codes.InvalidArgument, "etcdserver: key not found", rpctypes.ErrKeyNotFound}
	tooManyOps     = wireError{codes.InvalidArgument, "etcdserver: too many operations in txn request", rpctypes.ErrTooManyOps}
	duplicateKey   = wireError{codes.InvalidArgument, "etcdserver: duplicate key given in txn request", rpctypes.ErrDuplicateKey}
	tooLarge       = wireError{codes.InvalidArgument, "etcdserver: request is too large", rpctypes.ErrRequestTooLarge}
	leaseNotFound  = wireError{codes.NotFound, "etcdserver: requested lease not found", rpctypes.ErrLeaseNotFound}
	leaseExists    = wireError{codes.FailedPrecondition, "etcdserver: lease already exists", rpctypes.ErrLeaseExist}
	leaseTTLLarge  = wireError{codes.OutOfRange, "etcdserver: too large lease TTL", rpctypes.ErrLeaseTTLTooLarge}
	memberNotFound = wireError{codes.NotFound, "etcdserver: member not found", rpctypes.ErrMemberNotFound}
	peerURLsExist  = wireError{codes.FailedPrecondition, "etcdserver: Peer URLs already exists", rpctypes.ErrPeerURLExist}
	notLearner     = wireError{codes.FailedPrecondition, "etcdserver: can only promote a learner member", rpctypes.ErrMemberNotLearner}
	learnerRPC     = wireError{codes.FailedPrecondition, "etcdserver: rpc not supported for learner", nil}
	tooManyLearner = wireError{codes.FailedPrecondition, "etcdserver: too many learner members in cluster", rpctypes.ErrTooManyLearners}
	badURLs        = wireError{codes.InvalidArgument, "etcdserver: given member URLs are invalid", rpctypes.ErrMemberBadURLs}
	notLeader      = wireError{codes.FailedPrecondition, "etcdserver: not leader", rpctypes.ErrNotLeader}
	badTransferee  = wireError{codes.FailedPrecondition, "etcdserver: bad leader transferee", rpctypes.ErrBadLeaderTransferee}
	noAuth         = wireError{codes.FailedPrecondition, "etcdserver: authentication is not enabled", rpctypes.ErrAuthNotEnabled}
)

// wantError checks code, text and value.
func wantError(t *testing.T, err error, want wireError) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", want.text)
		return
	}
	if want.is == nil {
		if got := status.Convert(err); got.Code() != want.code || got.Message() != want.text {
			t.Errorf("error %s %q, want %s %q", got.Code(), got.Message(), want.code, want.text)
		}
		return
	}
	var typed rpctypes.EtcdError
	if !errors.As(err, &typed) {
		t.Errorf("error %q (%T) is not one that the client knows, want %q", err, err, want.text)
		return
	}
	if typed.Code() != want.code || typed.Error() != want.text || !errors.Is(err, want.is) {
		t.Errorf("error %s %q, want %s %q", typed.Code(), typed.Error(), want.code, want.text)
	}
}

// Programs match these texts byte by byte; and one bad request must not hurt the server.
func TestBadRequests(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		k := e.key("k")
		e.put("k", "v")
		e.put("leased", "v")
		lease, err := e.Grant(e.ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		puts := func(n int) []clientv3.Op {
			var all []clientv3.Op
			for i := range n {
				all = append(all, clientv3.OpPut(e.key(fmt.Sprint("op", i)), "v"))
			}
			return all
		}
		then := func(ops ...clientv3.Op) error {
			_, err := e.Txn(e.ctx).Then(ops...).Commit()
			return err
		}
		put := func(key, value string, options ...clientv3.OpOption) error {
			_, err := e.Put(e.ctx, key, value, options...)
			return err
		}
		get := func(key string, options ...clientv3.OpOption) error {
			_, err := e.Get(e.ctx, key, options...)
			return err
		}
		grant := func(id clientv3.LeaseID, ttl int64) error {
			_, err := clientv3.RetryLeaseClient(e.Client).LeaseGrant(e.ctx, &leaseGrant{ID: int64(id), TTL: ttl})
			return rpctypes.Error(err)
		}
		_, emptyDelete := e.Delete(e.ctx, "")
		_, emptyCompare := e.Txn(e.ctx).If(clientv3.Compare(clientv3.Value(""), "=", "v")).Commit()
		_, unknownRevoke := e.Revoke(e.ctx, 4242)
		_, unknownOnce := e.KeepAliveOnce(e.ctx, 4242)
		_, login := e.Authenticate(e.ctx, "nobody", "secret")
		for _, test := range []struct {
			name string
			err  error
			want wireError
		}{
			{"put without key", put("", "v"), emptyKey},
			{"get without key", get(""), emptyKey},
			{"delete without key", emptyDelete, emptyKey},
			{"compare without key", emptyCompare, emptyKey},
			{"txn put without key", then(clientv3.OpPut("", "v")), emptyKey},
			{"value of 1.5 MiB", put(k, strings.Repeat("v", 1572864)), tooLarge},
			{"txn of 129", then(puts(129)...), tooManyOps},
			{"txn of 1000", then(puts(1000)...), tooManyOps},
			{"put twice in a txn", then(clientv3.OpPut(k, "1"), clientv3.OpPut(k, "2")), duplicateKey},
			{"put and delete in a txn", then(clientv3.OpDelete(e.prefix, clientv3.WithPrefix()), clientv3.OpPut(k, "2")), duplicateKey},
			{"future revision", get(k, clientv3.WithRev(1<<40)), futureRevision},
			{"serializable future revision", get(k, clientv3.WithRev(1<<40), clientv3.WithSerializable()), futureRevision},
			{"put with an unknown lease", put(k, "v", clientv3.WithLease(4242)), leaseNotFound},
			{"txn put with an unknown lease", then(clientv3.OpPut(k, "v", clientv3.WithLease(4242))), leaseNotFound},
			{"revoke of an unknown lease", unknownRevoke, leaseNotFound},
			{"keep-alive of an unknown lease", unknownOnce, leaseNotFound},
			{"lease granted twice", grant(lease.ID, 60), leaseExists},
			{"lease for too long", grant(0, 9000000001), leaseTTLLarge},
			{"ignore the value of no key", put(e.key("none"), "", clientv3.WithIgnoreValue()), keyNotFound},
			{"ignore the lease of no key", put(e.key("none"), "v", clientv3.WithIgnoreLease()), keyNotFound},
			{"login without authentication", login, noAuth},
		} {
			t.Run(test.name, func(t *testing.T) { wantError(t, test.err, test.want) })
		}
		if got := e.get("k"); string(got.Kvs[0].Value) != "v" || got.Kvs[0].Version != 1 {
			t.Errorf("a refused request changed the key: %v", got.Kvs)
		}
	})
}

// A 10 MB value must be refused before it fills anything, and the connection must go on working.
func TestTenMegabyteValue(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		_, err := e.Put(e.ctx, e.key("big"), strings.Repeat("v", 10<<20))
		const want = "received message larger than max (10485"
		var typed rpctypes.EtcdError
		if err == nil || errors.As(err, &typed) || !strings.Contains(err.Error(), "code = ResourceExhausted") ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "vs. 2097152)") {
			t.Errorf("error %v, want ResourceExhausted grpc: %s… vs. 2097152)", err, want)
		}
		largest := strings.Repeat("v", 1572864-300)
		e.put("large", largest)
		if got := e.get("large"); string(got.Kvs[0].Value) != largest {
			t.Errorf("the largest value came back with %d bytes", len(got.Kvs[0].Value))
		}
		if got := e.get("big"); got.Count != 0 {
			t.Error("the refused value was stored")
		}
	})
}
