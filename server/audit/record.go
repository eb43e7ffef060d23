package audit

import (
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	// keyBytesMax is how much of a key is named.
	keyBytesMax = 512
	// opsMax is how many operations of a transaction are named.
	opsMax = 32
	// textBytesMax bounds every other text.
	textBytesMax = 2048
)

// Record is one request. What is empty or 0 is left out of the line, but for the
// code, the duration and the bytes.
type Record struct {
	Time       time.Time
	User       string // "" when auth is off or nobody is logged in
	Remote     string // address of the client, or
	From       netip.AddrPort
	CommonName string // in its verified certificate
	Operation  string // such as KV/Put
	Detail     string // what no other field says of the request

	Key, End []byte // End as in the API: empty is one key
	Lease    int64
	Txn      *pb.TxnRequest // its keys are named
	WatchID  int64          // with OfWatch
	OfWatch  bool

	Revision int64 // of the answer
	Code     string
	Error    string
	Took     time.Duration

	BytesIn, BytesOut       int
	MessagesIn, MessagesOut int // of a stream
}

// append appends the record as a line.
func (r *Record) append(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.UTC().Truncate(time.Microsecond).AppendFormat(b, time.RFC3339Nano) // the one that is fast
	b = append(b, '"')
	b = appendText(b, "user", r.User)
	b = appendText(b, "remote", r.Remote)
	if r.From.IsValid() {
		b = append(appendName(b, "remote"), '"')
		b = append(netip.AddrPortFrom(r.From.Addr().Unmap(), r.From.Port()).AppendTo(b), '"')
	}
	b = appendText(b, "cn", r.CommonName)
	b = appendText(b, "op", r.Operation)
	b = appendText(b, "detail", r.Detail)
	b = appendRange(b, r.Key, r.End)
	b = appendNumber(b, "lease", r.Lease)
	if r.OfWatch {
		b = append(append(b, `,"watch_id":`...), strconv.FormatInt(r.WatchID, 10)...)
	}
	if r.Txn != nil {
		b = appendTxn(b, r.Txn)
	}
	b = appendNumber(b, "revision", r.Revision)
	b = appendText(b, "code", r.Code)
	b = appendText(b, "error", r.Error)
	b = append(b, `,"duration_us":`...)
	b = strconv.AppendInt(b, r.Took.Microseconds(), 10)
	b = append(b, `,"bytes_in":`...)
	b = strconv.AppendInt(b, int64(r.BytesIn), 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, int64(r.BytesOut), 10)
	b = appendNumber(b, "messages_in", int64(r.MessagesIn))
	b = appendNumber(b, "messages_out", int64(r.MessagesOut))
	return append(b, "}\n"...)
}

func appendNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(appendName(b, name), n, 10)
}

func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(append(append(b, '"'), name...), `":`...)
}

func appendText(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	text = text[:min(len(text), textBytesMax)]
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	return appendString(appendName(b, name), text)
}

// appendRange names a key and the end of a range.
func appendRange(b []byte, key, end []byte) []byte {
	b = appendKey(b, "key", key)
	if len(end) > 0 {
		b = appendKey(b, "range_end", end)
	}
	return b
}

// appendKey names a key: as text if it is text, else in base64 as name_base64.
// One that is cut has its length beside it.
func appendKey(b []byte, name string, key []byte) []byte {
	if len(key) == 0 {
		return b
	}
	shown := key[:min(len(key), keyBytesMax)]
	if utf8.Valid(shown) {
		b = appendString(appendName(b, name), shown)
	} else {
		b = append(appendName(b, name+"_base64"), '"')
		b = append(base64.StdEncoding.AppendEncode(b, shown), '"')
	}
	if len(shown) < len(key) {
		b = strconv.AppendInt(appendName(b, name+"_bytes"), int64(len(key)), 10)
	}
	return b
}

// appendString appends a JSON string.
func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// txnOps writes the operations of a transaction, up to opsMax of them.
type txnOps struct {
	line  []byte
	named int
	more  int
}

// appendTxn names what a transaction compares, and does in both branches:
//
//	"ops":[{"op":"if","key":"a"},{"op":"then put","key":"a"},{"op":"else range","key":"a"}]
func appendTxn(b []byte, r *pb.TxnRequest) []byte {
	ops := txnOps{line: append(b, `,"ops":[`...)}
	ops.txn("", r)
	ops.line = append(ops.line, ']')
	return appendNumber(ops.line, "more_ops", int64(ops.more))
}

func (o *txnOps) txn(prefix string, r *pb.TxnRequest) {
	for _, c := range r.Compare {
		o.op(prefix+"if", c.Key, c.RangeEnd, 0)
	}
	for _, op := range r.Success {
		o.request(prefix+"then ", op)
	}
	for _, op := range r.Failure {
		o.request(prefix+"else ", op)
	}
}

func (o *txnOps) request(branch string, op *pb.RequestOp) {
	switch u := op.Request.(type) {
	case *pb.RequestOp_RequestPut:
		o.op(branch+"put", u.RequestPut.Key, nil, u.RequestPut.Lease)
	case *pb.RequestOp_RequestRange:
		o.op(branch+"range", u.RequestRange.Key, u.RequestRange.RangeEnd, 0)
	case *pb.RequestOp_RequestDeleteRange:
		o.op(branch+"delete", u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd, 0)
	case *pb.RequestOp_RequestTxn:
		if o.named == opsMax { // all that is in it counts as one
			o.more++
			return
		}
		o.txn(branch, u.RequestTxn)
	}
}

func (o *txnOps) op(what string, key, end []byte, lease int64) {
	if o.named == opsMax {
		o.more++
		return
	}
	if o.named > 0 {
		o.line = append(o.line, ',')
	}
	o.named++
	o.line = appendText(append(o.line, '{'), "op", what)
	o.line = appendRange(o.line, key, end)
	o.line = append(appendNumber(o.line, "lease", lease), '}')
}
