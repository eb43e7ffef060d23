package client

import (
	"context"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Option changes a Put, Get, Delete or Watch. One that means nothing to the
// call it is given to is ignored.
type Option func(*settings)

type settings struct {
	prefix, fromKey bool
	end             []byte
	lease           int64
	prevKV          bool
	ignoreValue     bool
	ignoreLease     bool
	read            pb.RangeRequest // the fields that only reads have
	watch           watchSettings
}

// Prefix: all keys that begin with the given one.
func Prefix() Option { return func(s *settings) { s.prefix = true } }

// FromKey: all keys from the given one on.
func FromKey() Option { return func(s *settings) { s.fromKey = true } }

// End: the keys from the given one up to end, end not included.
func End(end string) Option { return func(s *settings) { s.end = []byte(end) } }

// Lease attaches the key to a lease.
func Lease(id int64) Option { return func(s *settings) { s.lease = id } }

// PrevKV asks for the pairs as they were before the change.
func PrevKV() Option { return func(s *settings) { s.prevKV = true } }

// IgnoreValue keeps the value that the key has.
func IgnoreValue() Option { return func(s *settings) { s.ignoreValue = true } }

// IgnoreLease keeps the lease that the key has.
func IgnoreLease() Option { return func(s *settings) { s.ignoreLease = true } }

// Revision reads as of, or watches from, the given revision.
func Revision(rev int64) Option {
	return func(s *settings) { s.read.Revision, s.watch.from = rev, rev }
}

// Limit returns at most n pairs.
func Limit(n int64) Option { return func(s *settings) { s.read.Limit = n } }

// Serializable reads what the asked member has, without asking the others.
func Serializable() Option { return func(s *settings) { s.read.Serializable = true } }

// KeysOnly leaves out the values.
func KeysOnly() Option { return func(s *settings) { s.read.KeysOnly = true } }

// CountOnly leaves out the pairs.
func CountOnly() Option { return func(s *settings) { s.read.CountOnly = true } }

// Sort orders the pairs.
func Sort(by pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder) Option {
	return func(s *settings) { s.read.SortTarget, s.read.SortOrder = by, order }
}

// CreatedBetween keeps pairs created at from..to; 0 means no bound.
func CreatedBetween(from, to int64) Option {
	return func(s *settings) { s.read.MinCreateRevision, s.read.MaxCreateRevision = from, to }
}

// ModifiedBetween keeps pairs modified at from..to; 0 means no bound.
func ModifiedBetween(from, to int64) Option {
	return func(s *settings) { s.read.MinModRevision, s.read.MaxModRevision = from, to }
}

func apply(options []Option) *settings {
	s := &settings{}
	for _, o := range options {
		o(s)
	}
	return s
}

// bounds are the key and range_end of a request.
func (s *settings) bounds(key string) (from, end []byte) {
	switch {
	case s.prefix && key == "", s.fromKey && key == "":
		return []byte{0}, []byte{0}
	case s.prefix:
		return []byte(key), PrefixEnd([]byte(key))
	case s.fromKey:
		return []byte(key), []byte{0}
	}
	return []byte(key), s.end
}

// PrefixEnd is the end of the range of all keys that begin with prefix. It is
// one zero byte ("to the last key") when the prefix is all 0xff.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// PutRequest is the request that Put sends, for transactions.
func PutRequest(key, value string, options ...Option) *pb.PutRequest {
	s := apply(options)
	return &pb.PutRequest{
		Key: []byte(key), Value: []byte(value), Lease: s.lease,
		PrevKv: s.prevKV, IgnoreValue: s.ignoreValue, IgnoreLease: s.ignoreLease,
	}
}

// GetRequest is the request that Get sends, for transactions.
func GetRequest(key string, options ...Option) *pb.RangeRequest {
	s := apply(options)
	s.read.Key, s.read.RangeEnd = s.bounds(key)
	return &s.read
}

// DeleteRequest is the request that Delete sends, for transactions.
func DeleteRequest(key string, options ...Option) *pb.DeleteRangeRequest {
	s := apply(options)
	r := &pb.DeleteRangeRequest{PrevKv: s.prevKV}
	r.Key, r.RangeEnd = s.bounds(key)
	return r
}

// Put writes a pair.
func (c *Client) Put(ctx context.Context, key, value string, options ...Option) (*pb.PutResponse, error) {
	return c.KV.Put(ctx, PutRequest(key, value, options...))
}

// Get reads a key or a range.
func (c *Client) Get(ctx context.Context, key string, options ...Option) (*pb.RangeResponse, error) {
	return c.KV.Range(ctx, GetRequest(key, options...))
}

// Delete removes a key or a range.
func (c *Client) Delete(ctx context.Context, key string, options ...Option) (*pb.DeleteRangeResponse, error) {
	return c.KV.DeleteRange(ctx, DeleteRequest(key, options...))
}

// Compact forgets the history before rev. With wait it returns when the space
// is free, else when the work is scheduled.
func (c *Client) Compact(ctx context.Context, rev int64, wait bool) (*pb.CompactionResponse, error) {
	return c.KV.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: wait})
}

// GetStream reads a range in chunks and gives each to visit; only the last has
// a header, more and count. It starts again after a lost connection only while
// visit has not been called.
func (c *Client) GetStream(ctx context.Context, r *pb.RangeRequest, visit func(*pb.RangeResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return c.reopen(ctx, func() (started bool, err error) {
		s, err := c.KV.RangeStream(ctx, r)
		for err == nil {
			var m *pb.RangeStreamResponse
			if m, err = s.Recv(); err == nil {
				started = true
				err = visit(m.GetRangeResponse())
			}
		}
		return started, err
	})
}
