package print

import (
	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// Put shows the answer to a put.
func (p *Printer) Put(r *pb.PutResponse) error {
	return p.show(forms{
		simple: func() { p.simplePut(r) }, fields: func() { p.fieldsPut(r) }, json: r, proto: r,
	})
}

// Get shows the answer to a get.
func (p *Printer) Get(r *pb.RangeResponse) error {
	return p.show(forms{
		simple: func() { p.simpleGet(r) }, fields: func() { p.fieldsGet(r) }, json: r, proto: r,
	})
}

// Delete shows the answer to a del.
func (p *Printer) Delete(r *pb.DeleteRangeResponse) error {
	return p.show(forms{
		simple: func() { p.simpleDelete(r) }, fields: func() { p.fieldsDelete(r) }, json: r, proto: r,
	})
}

// Txn shows the answer to a transaction.
func (p *Printer) Txn(r *pb.TxnResponse) error {
	return p.show(forms{
		simple: func() { p.simpleTxn(r) }, fields: func() { p.fieldsTxn(r) }, json: txnToJSON(r), proto: r,
	})
}

// txnJSON is a transaction's answer with the names of the protocol in it, which
// encoding/json does not find inside a oneof.
type txnJSON struct {
	Header    *pb.ResponseHeader `json:"header,omitempty"`
	Succeeded bool               `json:"succeeded,omitempty"`
	Responses []opJSON           `json:"responses,omitempty"`
}

type opJSON struct {
	Response map[string]any
}

func txnToJSON(r *pb.TxnResponse) txnJSON {
	t := txnJSON{Header: r.Header, Succeeded: r.Succeeded}
	for _, op := range r.Responses {
		one := map[string]any{}
		switch v := op.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			one["response_put"] = v.ResponsePut
		case *pb.ResponseOp_ResponseRange:
			one["response_range"] = v.ResponseRange
		case *pb.ResponseOp_ResponseDeleteRange:
			one["response_delete_range"] = v.ResponseDeleteRange
		case *pb.ResponseOp_ResponseTxn:
			one["response_txn"] = txnToJSON(v.ResponseTxn)
		}
		t.Responses = append(t.Responses, opJSON{one})
	}
	return t
}

func (p *Printer) simplePut(r *pb.PutResponse) {
	p.line("OK")
	if r.PrevKv != nil {
		p.pair(r.PrevKv)
	}
}

func (p *Printer) fieldsPut(r *pb.PutResponse) {
	p.headerFields(r.Header)
	if r.PrevKv != nil {
		p.fieldsKV("Prev", r.PrevKv)
	}
}

func (p *Printer) simpleGet(r *pb.RangeResponse) {
	for _, kv := range r.Kvs {
		p.pair(kv)
	}
}

// pair writes a key line and a value line, or one of them.
func (p *Printer) pair(kv *mvccpb.KeyValue) {
	if !p.ValueOnly {
		p.line("%s", p.bytes(kv.Key))
	}
	p.line("%s", p.bytes(kv.Value))
}

func (p *Printer) fieldsGet(r *pb.RangeResponse) {
	p.headerFields(r.Header)
	for _, kv := range r.Kvs {
		p.fieldsKV("", kv)
	}
	p.field("More", r.More)
	p.field("Count", r.Count)
}

func (p *Printer) fieldsKV(prefix string, kv *mvccpb.KeyValue) {
	p.field(prefix+"Key", quoted(kv.Key))
	p.field(prefix+"CreateRevision", kv.CreateRevision)
	p.field(prefix+"ModRevision", kv.ModRevision)
	p.field(prefix+"Version", kv.Version)
	p.field(prefix+"Value", quoted(kv.Value))
	p.field(prefix+"Lease", p.lease(kv.Lease))
}

func (p *Printer) simpleDelete(r *pb.DeleteRangeResponse) {
	p.line("%d", r.Deleted)
	for _, kv := range r.PrevKvs {
		p.pair(kv)
	}
}

func (p *Printer) fieldsDelete(r *pb.DeleteRangeResponse) {
	p.headerFields(r.Header)
	p.field("Deleted", r.Deleted)
	for _, kv := range r.PrevKvs {
		p.fieldsKV("Prev", kv)
	}
}

func (p *Printer) simpleTxn(r *pb.TxnResponse) {
	if r.Succeeded {
		p.line("SUCCESS")
	} else {
		p.line("FAILURE")
	}
	for _, op := range r.Responses {
		p.line("")
		switch v := op.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			p.simplePut(v.ResponsePut)
		case *pb.ResponseOp_ResponseRange:
			p.simpleGet(v.ResponseRange)
		case *pb.ResponseOp_ResponseDeleteRange:
			p.simpleDelete(v.ResponseDeleteRange)
		case *pb.ResponseOp_ResponseTxn:
			p.simpleTxn(v.ResponseTxn)
		}
	}
}

func (p *Printer) fieldsTxn(r *pb.TxnResponse) {
	p.headerFields(r.Header)
	p.field("Succeeded", r.Succeeded)
	for _, op := range r.Responses {
		switch v := op.Response.(type) {
		case *pb.ResponseOp_ResponsePut:
			p.fieldsPut(v.ResponsePut)
		case *pb.ResponseOp_ResponseRange:
			p.fieldsGet(v.ResponseRange)
		case *pb.ResponseOp_ResponseDeleteRange:
			p.fieldsDelete(v.ResponseDeleteRange)
		case *pb.ResponseOp_ResponseTxn:
			p.fieldsTxn(v.ResponseTxn)
		}
	}
}

// Watch shows one response of a watcher.
func (p *Printer) Watch(r *client.WatchResponse) error {
	wire := &pb.WatchResponse{
		Header: r.Header, CompactRevision: r.CompactRevision, Canceled: r.Canceled, Created: r.Created,
		CancelReason: r.CancelReason, Events: r.Events,
	}
	return p.show(forms{
		simple: func() { p.simpleWatch(r) },
		fields: func() { p.fieldsWatch(r) },
		json:   r,
		proto:  wire,
	})
}

func (p *Printer) simpleWatch(r *client.WatchResponse) {
	for _, e := range r.Events {
		p.line("%s", e.Type)
		if e.PrevKv != nil {
			p.pair(e.PrevKv)
		}
		p.pair(e.Kv)
	}
}

func (p *Printer) fieldsWatch(r *client.WatchResponse) {
	p.headerFields(r.Header)
	for _, e := range r.Events {
		p.field("Type", e.Type)
		if e.PrevKv != nil {
			p.fieldsKV("Prev", e.PrevKv)
		}
		p.fieldsKV("", e.Kv)
	}
}
