package linear

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// recoverMax is how long the cluster may take to answer writes again when nothing is wrong with it any more.
const recoverMax = 30 * time.Second

// injector does one bad thing to the cluster after the other. One goroutine owns it.
type injector struct {
	*workload
	seed    uint64
	random  *rand.Rand // of the fault under way, so that the n-th fault follows from the seed alone
	cluster *process.Cluster
	proxies *Proxies
	control []*grpc.ClientConn // to each member, past the proxies
	ids     []uint64           // member IDs, in the order of cluster.Members
	disk    *disk              // of the member diskOf; nil: it cannot be had here
	diskOf  int
	filled  bool // its disk was full, so it may have ended by itself
	counts  map[string]int
	log     func(format string, args ...any)
}

type fault struct {
	name   string
	weight int
	do     func(ctx context.Context) error
}

func (f *injector) faults() []fault {
	all := []fault{
		{"kill a member", 4, func(ctx context.Context) error { return f.kill(ctx, f.any()) }},
		{"kill the leader", 4, func(ctx context.Context) error { return f.kill(ctx, f.leader(ctx)) }},
		{"kill two members", 2, func(ctx context.Context) error { return f.kill(ctx, f.any(), f.any()) }},
		{"kill all members", 2, func(ctx context.Context) error { return f.kill(ctx, f.all()...) }},
		{"restart all members", 1, f.restartAll},
		{"slow start", 2, f.slowStart},
		{"pause a member", 2, func(ctx context.Context) error { return f.pause(ctx, f.any()) }},
		{"pause the leader", 4, func(ctx context.Context) error { return f.pause(ctx, f.leader(ctx)) }},
		{"transfer leadership", 3, f.transfer},
		{"isolate a member", 3, func(ctx context.Context) error { return f.isolate(ctx, f.any()) }},
		{"isolate the leader", 5, func(ctx context.Context) error { return f.isolate(ctx, f.leader(ctx)) }},
		{"split the cluster", 3, f.split},
		{"cut a pair", 3, f.cutPair},
		{"slow links", 3, f.slowLinks},
		{"cut clients off", 3, f.cutClients},
		{"replace a member", 3, f.replace},
		{"defragment", 2, f.defragment},
	}
	if f.disk != nil {
		all = append(all, fault{"slow disk", 3, f.slowDisk}, fault{"stalled disk", 2, f.stalledDisk}, fault{"full disk", 2, f.fullDisk})
	}
	return all
}

// run injects faults until ctx ends and leaves the cluster whole.
func (f *injector) run(ctx context.Context) error {
	for n := uint64(0); ctx.Err() == nil; n++ {
		one := f.draw(n)
		f.note(one.name)
		if err := one.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		if err := f.recovered(); err != nil {
			return fmt.Errorf("after %q: %w", one.name, err)
		}
		wait(ctx, f.between(0, 700*time.Millisecond))
	}
	return nil
}

func (f *injector) note(what string) {
	f.counts[what]++
	f.log("%s: %s", seconds(f.recorder.Now()), what)
}

// draw chooses the n-th fault; all that is random in it follows from the seed and n, whatever happened before.
func (f *injector) draw(n uint64) fault {
	f.random = rand.New(rand.NewPCG(f.seed, 1000+n))
	all, sum := f.faults(), 0
	for _, one := range all {
		sum += one.weight
	}
	place := f.random.IntN(sum)
	for _, one := range all {
		if place -= one.weight; place < 0 {
			return one
		}
	}
	panic("weights do not add up")
}

// recovered waits until all members serve and a write is answered.
func (f *injector) recovered() error {
	deadline := time.Now().Add(recoverMax)
	c := &client{workload: f.workload, id: 90, random: f.random}
	for member := 0; ; member++ {
		if err := f.revive(); err != nil {
			return err
		}
		o := c.do(member%len(f.endpoints), Request{Writes: []Write{c.write(keyAt(f.recorder.Now(), keysAtOnce))}})
		if o.Outcome == Done {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no write was answered for %s, the last one: %s", recoverMax, o.Answer.Failure)
		}
		wait(context.Background(), 20*time.Millisecond)
	}
}

// revive waits until launched members serve. None may have ended by itself, but one whose disk was full: that one is
// started again.
func (f *injector) revive() error {
	for i, e := range f.endpoints {
		m := f.cluster.Members[i]
		if e.life.Load()%2 == 1 && m.PID() == 0 {
			if !f.filled || i != f.diskOf {
				return fmt.Errorf("%s ended by itself with %v:\n%s", m.Name, m.Ended(), m.LogTail(30))
			}
			f.log("%s: %s ended, as its disk was full, and is started again", seconds(f.recorder.Now()), m.Name)
			e.life.Add(1)
			if err := m.Launch(); err != nil {
				return err
			}
		}
		if err := f.serve(i); err != nil {
			return err
		}
	}
	return nil
}

func (f *injector) any() int { return f.random.IntN(len(f.endpoints)) }

func (f *injector) all() []int {
	all := make([]int, len(f.endpoints))
	for i := range all {
		all[i] = i
	}
	return all
}

func (f *injector) between(least, most time.Duration) time.Duration {
	return least + time.Duration(f.random.Int64N(int64(most-least)))
}

// hold waits while a fault lasts; sometimes something else happens meanwhile.
func (f *injector) hold(ctx context.Context, d time.Duration) error {
	wait(ctx, d/2)
	if ctx.Err() == nil {
		switch f.random.IntN(6) {
		case 0:
			_ = f.transfer(ctx) // it may fail while members are away
		case 1:
			_ = f.defragment(ctx)
		case 2:
			if err := f.bounce(f.any()); err != nil {
				return err
			}
		}
	}
	wait(ctx, d/2)
	return nil
}

// leader is whom a member believes to lead; any member when nobody knows.
func (f *injector) leader(ctx context.Context) int {
	for i := range f.control {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		s, err := pb.NewMaintenanceClient(f.control[i]).Status(ctx, &pb.StatusRequest{})
		cancel()
		if err != nil {
			continue
		}
		for j, id := range f.ids {
			if id == s.Leader {
				return j
			}
		}
	}
	return f.any()
}

// transfer asks the leader to hand over. That it may fail is no fault of the cluster's.
func (f *injector) transfer(ctx context.Context) error {
	from := f.leader(ctx)
	to := (from + 1 + f.random.IntN(len(f.ids)-1)) % len(f.ids)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := pb.NewMaintenanceClient(f.control[from]).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: f.ids[to]})
	if err != nil {
		f.log("%s: leadership not transferred: %v", seconds(f.recorder.Now()), err)
	}
	return nil
}

func (f *injector) defragment(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := pb.NewMaintenanceClient(f.control[f.any()]).Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
		f.log("%s: not defragmented: %v", seconds(f.recorder.Now()), err)
	}
	return nil
}

// compact forgets the past again and again, but nothing that seen has not passed.
func (f *injector) compact(ctx context.Context, random *rand.Rand, seen func() int64) {
	for ctx.Err() == nil {
		wait(ctx, time.Duration(300+random.IntN(900))*time.Millisecond)
		revision := seen() - random.Int64N(100)
		if revision < firstRevision || ctx.Err() != nil {
			continue
		}
		f.recorder.Compacting(revision)
		ctx, cancel := context.WithTimeout(ctx, requestMax)
		// It may fail while members are away, or be older than the last one.
		_, _ = pb.NewKVClient(f.control[random.IntN(len(f.control))]).Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: random.IntN(3) == 0})
		cancel()
	}
}
