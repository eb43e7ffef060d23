package client

import (
	"context"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Txn is a transaction: Then runs if all of If hold, else Else.
type Txn struct {
	If         []*pb.Compare
	Then, Else []*pb.RequestOp
}

// Txn runs a transaction.
func (c *Client) Txn(ctx context.Context, t Txn) (*pb.TxnResponse, error) {
	return c.KV.Txn(ctx, t.request())
}

func (t Txn) request() *pb.TxnRequest {
	return &pb.TxnRequest{Compare: t.If, Success: t.Then, Failure: t.Else}
}

// Ops makes the list of a branch out of requests: *pb.PutRequest,
// *pb.RangeRequest, *pb.DeleteRangeRequest, *pb.TxnRequest or Txn. Any other
// type is a mistake of the program and panics.
func Ops(requests ...any) []*pb.RequestOp {
	ops := make([]*pb.RequestOp, len(requests))
	for i, r := range requests {
		switch r := r.(type) {
		case *pb.PutRequest:
			ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
		case *pb.RangeRequest:
			ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
		case *pb.DeleteRangeRequest:
			ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
		case *pb.TxnRequest:
			ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
		case Txn:
			ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r.request()}}
		default:
			panic("client: not a request of a transaction")
		}
	}
	return ops
}

// Is says how a Compare looks at the two sides.
type Is = pb.Compare_CompareResult

// The four comparisons.
const (
	Equal    = pb.Compare_EQUAL
	NotEqual = pb.Compare_NOT_EQUAL
	Greater  = pb.Compare_GREATER
	Less     = pb.Compare_LESS
)

// Value compares the value of a key.
func Value(key string, is Is, value string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Result: is, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(value)}}
}

// Version compares the version of a key; 0 means that it does not exist.
func Version(key string, is Is, n int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Result: is, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: n}}
}

// Created compares the create revision of a key; 0 means that it does not exist.
func Created(key string, is Is, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Result: is, Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}
}

// Modified compares the mod revision of a key.
func Modified(key string, is Is, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Result: is, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

// LeaseOf compares the lease of a key; 0 means none.
func LeaseOf(key string, is Is, id int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Result: is, Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: id}}
}
