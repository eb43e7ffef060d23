package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Load is one load, connected and prepared: its keys are written, its leases granted, its watchers created.
type Load struct {
	options Options
	pool    *pool
	ctx     context.Context // of streams that live as long as the load
	cancel  context.CancelFunc
	events  *watchers // nil unless operations are events
	leases  []int64
}

// Prepare connects and does everything that is not to be measured. The caller closes the load.
func Prepare(ctx context.Context, o Options) (*Load, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p, err := dial(ctx, &o)
	if err != nil {
		return nil, err
	}
	l := &Load{options: o, pool: p}
	l.ctx, l.cancel = context.WithCancel(p.context(ctx))
	if err := l.prepare(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Load) prepare() error {
	if l.options.Fill {
		if err := l.fill(); err != nil {
			return fmt.Errorf("write the keys to be read: %w", err)
		}
	}
	switch {
	case l.options.watches():
		return l.watch()
	case l.options.Kind == LeaseKeepAlive:
		return l.grant()
	}
	return nil
}

// Close ends streams and connections, and revokes the load's leases.
func (l *Load) Close() {
	l.revoke()
	l.cancel()
	if l.events != nil {
		l.events.wait()
	}
	l.pool.close()
}

// Run measures once. progress, when given, is called by the collecting goroutine with each new point.
func (l *Load) Run(ctx context.Context, progress func(Point, time.Duration)) (*Report, error) {
	ctx = l.pool.context(ctx)
	report, err := l.run(ctx, progress)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil && report.Operations == 0 {
		return nil, err
	}
	return report, report.verdict()
}

func (l *Load) run(ctx context.Context, progress func(Point, time.Duration)) (*Report, error) {
	o := &l.options
	if o.watches() {
		return l.runWatch(ctx, progress)
	}
	workers := make([]issue, o.Clients)
	for i := range workers {
		do, err := l.worker(i)
		if err != nil {
			return nil, err
		}
		workers[i] = do
	}
	parts := []string{string(o.Kind)}
	if o.Kind == Mixed {
		parts = []string{"read", "write"}
	}
	r := newRecorder(shardCount(o.Clients), len(parts))
	return measure(ctx, o, r, newPace(o, time.Now()), workers, parts, progress), nil
}

// worker makes what client i does.
func (l *Load) worker(i int) (issue, error) {
	c := newCaller(l, i)
	switch l.options.Kind {
	case Put:
		return c.put, nil
	case Range:
		return c.read, nil
	case Txn:
		return c.txn(), nil
	case Mixed:
		return c.mixed, nil
	case LeaseKeepAlive:
		return l.keeper(i)
	}
	return nil, fmt.Errorf("no such load: %q", l.options.Kind)
}

const (
	fillers      = 8       // transactions in flight while the key space is written
	fillOpsMax   = 100     // puts per transaction: servers allow 128 by default
	fillBytesMax = 1 << 20 // and 1.5 MiB
)

// fill writes every key of the key space, many in one transaction.
func (l *Load) fill() error {
	o := l.options
	batch := int64(max(1, min(fillOpsMax, fillBytesMax/(o.KeySize+o.ValSize))))
	batches := (o.KeySpace + batch - 1) / batch
	next := atomic.Int64{}
	group, ctx := errgroup.WithContext(l.ctx)
	for i := range fillers {
		c := newCaller(l, i)
		group.Go(func() error {
			for at := next.Add(1) - 1; at < batches; at = next.Add(1) - 1 {
				if err := c.fill(ctx, at*batch, min((at+1)*batch, o.KeySpace)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// fill writes the keys numbered from..to-1 in one transaction.
func (c *caller) fill(ctx context.Context, from, to int64) error {
	request := &pb.TxnRequest{}
	for i := from; i < to; i++ {
		put := &pb.PutRequest{Key: c.keys.at(nil, i), Value: c.puts.Value}
		request.Success = append(request.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	_, err := c.call(ctx, rpcTxn, request, 0)
	return err
}

// caller is one client of a load: its requests are built once and used again. One goroutine.
type caller struct {
	o     *Options
	conn  *grpc.ClientConn
	keys  *keys
	key   []byte
	reply reply
	puts  *pb.PutRequest
	gets  *pb.RangeRequest
}

func newCaller(l *Load, i int) *caller {
	o := &l.options
	c := &caller{o: o, conn: l.pool.at(i), keys: newKeys(o, i), puts: &pb.PutRequest{Value: make([]byte, o.ValSize)}}
	fillValue(c.puts.Value, newRandom(o.Seed, i))
	c.gets = &pb.RangeRequest{
		Serializable: o.Serializable, Limit: o.Limit, CountOnly: o.CountOnly, KeysOnly: o.KeysOnly,
	}
	if o.List {
		c.gets.Key = []byte(o.Prefix)
		c.gets.RangeEnd = prefixEnd(o.Prefix)
	}
	return c
}

// call makes one call with the load's time limit.
func (c *caller) call(ctx context.Context, method string, request any, p part) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.CallMax)
	defer cancel()
	if err := c.conn.Invoke(ctx, method, request, &c.reply); err != nil {
		return outcome{}, err
	}
	return outcome{part: p, items: c.reply.items, bytes: c.reply.bytes}, nil
}

func (c *caller) put(ctx context.Context, n int64, _ time.Duration) (outcome, error) {
	c.key = c.keys.next(c.key, n)
	c.puts.Key = c.key
	return c.call(ctx, rpcPut, c.puts, 0)
}

func (c *caller) read(ctx context.Context, n int64, _ time.Duration) (outcome, error) {
	if !c.o.List {
		c.key = c.keys.next(c.key, n)
		c.gets.Key = c.key
	}
	return c.call(ctx, rpcRange, c.gets, 0)
}

// mixed reads or writes; the share of reads is exact over every thousand operations.
func (c *caller) mixed(ctx context.Context, n int64, due time.Duration) (outcome, error) {
	const spread = 617 // prime: reads and writes alternate instead of coming in blocks
	if float64(n*spread%1000) < c.o.ReadRatio*1000 {
		return c.read(ctx, n, due)
	}
	out, err := c.put(ctx, n, due)
	out.part = 1
	return out, err
}

// txn makes a transaction whose compares always hold, so that the operations run.
func (c *caller) txn() issue {
	request := &pb.TxnRequest{}
	keys := make([][]byte, 0, c.o.TxnCompares+c.o.TxnPuts+c.o.TxnRanges)
	var set []func([]byte)
	for range c.o.TxnCompares {
		compare := &pb.Compare{
			Target: pb.Compare_VERSION, Result: pb.Compare_GREATER,
			TargetUnion: &pb.Compare_Version{Version: -1},
		}
		request.Compare = append(request.Compare, compare)
		set = append(set, func(key []byte) { compare.Key = key })
	}
	for range c.o.TxnPuts {
		put := &pb.PutRequest{Value: c.puts.Value}
		request.Success = append(request.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		set = append(set, func(key []byte) { put.Key = key })
	}
	for range c.o.TxnRanges {
		get := &pb.RangeRequest{}
		request.Success = append(request.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: get}})
		set = append(set, func(key []byte) { get.Key = key })
	}
	keys = keys[:len(set)]
	return func(ctx context.Context, n int64, _ time.Duration) (outcome, error) {
		// Neighbours of one drawn key: two puts of one key in a txn would be refused.
		c.key = c.keys.next(c.key, n)
		first := keyNumber(c.key)
		for i := range keys {
			keys[i] = c.keys.at(keys[i], (first+int64(i))%max(c.keys.space, int64(len(keys))))
			set[i](keys[i])
		}
		return c.call(ctx, rpcTxn, request, 0)
	}
}
