package linear

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// recoverMax is how long the cluster may take to answer writes again when nothing is wrong with it any more.
const recoverMax = 30 * time.Second

// injector does one bad thing to the cluster after the other. One goroutine owns it.
type injector struct {
	*workload
	random  *rand.Rand
	cluster *process.Cluster
	proxies *Proxies
	ids     []uint64 // member IDs, in the order of cluster.Members
	log     func(format string, args ...any)
}

type fault struct {
	name   string
	weight int
	do     func(ctx context.Context) error
}

func (f *injector) faults() []fault {
	return []fault{
		{"kill a member", 4, func(ctx context.Context) error { return f.kill(ctx, f.any()) }},
		{"kill the leader", 4, func(ctx context.Context) error { return f.kill(ctx, f.leader(ctx)) }},
		{"kill two members", 2, func(ctx context.Context) error { return f.kill(ctx, f.any(), f.any()) }},
		{"kill all members", 1, func(ctx context.Context) error { return f.kill(ctx, 0, 1, 2) }},
		{"slow start", 2, f.slowStart},
		{"pause a member", 2, func(ctx context.Context) error { return f.pause(ctx, f.any()) }},
		{"pause the leader", 3, func(ctx context.Context) error { return f.pause(ctx, f.leader(ctx)) }},
		{"transfer leadership", 3, f.transfer},
		{"isolate a member", 3, func(ctx context.Context) error { return f.isolate(ctx, f.any()) }},
		{"isolate the leader", 4, func(ctx context.Context) error { return f.isolate(ctx, f.leader(ctx)) }},
		{"cut a pair", 3, f.cutPair},
		{"defragment", 2, f.defragment},
	}
}

// run injects faults until ctx ends and leaves the cluster whole.
func (f *injector) run(ctx context.Context) error {
	for ctx.Err() == nil {
		one := f.draw()
		f.log("%s: %s", seconds(f.recorder.Now()), one.name)
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

func (f *injector) draw() fault {
	all, sum := f.faults(), 0
	for _, one := range all {
		sum += one.weight
	}
	n := f.random.IntN(sum)
	for _, one := range all {
		if n -= one.weight; n < 0 {
			return one
		}
	}
	panic("weights do not add up")
}

// recovered waits until all members serve and a write is answered.
func (f *injector) recovered() error {
	for i := range f.endpoints {
		if err := f.serve(i); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(recoverMax)
	c := &client{workload: f.workload, id: 90, random: f.random}
	for member := 0; ; member++ {
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

func (f *injector) any() int { return f.random.IntN(len(f.endpoints)) }

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
	for _, e := range f.endpoints {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		s, err := pb.NewMaintenanceClient(e.conn).Status(ctx, &pb.StatusRequest{})
		cancel()
		if err != nil {
			continue
		}
		for i, id := range f.ids {
			if id == s.Leader {
				return i
			}
		}
	}
	return f.any()
}

// kill ends members and starts them again, all at once or one after the other.
func (f *injector) kill(ctx context.Context, members ...int) error {
	for _, i := range members {
		f.end(i)
	}
	if err := f.hold(ctx, f.between(time.Millisecond, 2500*time.Millisecond)); err != nil {
		return err
	}
	for _, i := range members {
		if f.cluster.Members[i].PID() == 0 {
			if err := f.cluster.Members[i].Launch(); err != nil {
				return err
			}
		}
	}
	return f.serve(members...)
}

// bounce ends a member and starts it, but does not wait until it serves: it may need those who are away.
func (f *injector) bounce(i int) error {
	f.end(i)
	if f.cluster.Members[i].PID() != 0 {
		return nil
	}
	f.log("%s: and %s is killed and launched meanwhile", seconds(f.recorder.Now()), f.cluster.Members[i].Name)
	return f.cluster.Members[i].Launch()
}

func (f *injector) end(i int) {
	if e := f.endpoints[i]; e.life.Load()%2 == 1 {
		e.life.Add(1)
		f.cluster.Members[i].Kill()
	}
}

// serve waits until launched members do.
func (f *injector) serve(members ...int) error {
	for _, i := range members {
		if f.endpoints[i].life.Load()%2 == 1 {
			continue
		}
		if err := f.cluster.Members[i].WaitReady(); err != nil {
			return err
		}
		f.endpoints[i].life.Add(1)
	}
	return nil
}

// slowStart stops a member in the middle of its start.
func (f *injector) slowStart(ctx context.Context) error {
	i := f.any()
	f.end(i)
	wait(ctx, f.between(0, time.Second))
	m := f.cluster.Members[i]
	if err := m.Launch(); err != nil {
		return err
	}
	wait(ctx, f.between(5*time.Millisecond, 150*time.Millisecond))
	m.Signal(syscall.SIGSTOP)
	wait(ctx, f.between(100*time.Millisecond, 2*time.Second))
	m.Signal(syscall.SIGCONT)
	return f.serve(i)
}

func (f *injector) pause(ctx context.Context, i int) error {
	f.cluster.Members[i].Signal(syscall.SIGSTOP)
	err := f.hold(ctx, f.between(100*time.Millisecond, 2500*time.Millisecond))
	f.cluster.Members[i].Signal(syscall.SIGCONT)
	return err
}

// transfer asks the leader to hand over. That it may fail is no fault of the cluster's.
func (f *injector) transfer(ctx context.Context) error {
	from := f.leader(ctx)
	to := (from + 1 + f.random.IntN(len(f.ids)-1)) % len(f.ids)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := pb.NewMaintenanceClient(f.endpoints[from].conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: f.ids[to]})
	if err != nil {
		f.log("%s: leadership not transferred: %v", seconds(f.recorder.Now()), err)
	}
	return nil
}

// isolate parts a member from the others: in both directions or one, with broken connections or silent ones.
func (f *injector) isolate(ctx context.Context, i int) error {
	name := f.cluster.Members[i].Name
	in, out := []Link{{"", name}}, []Link{}
	for j, m := range f.cluster.Members {
		if j != i {
			in, out = append(in, Link{m.Name, name}), append(out, Link{name, m.Name})
		}
	}
	links := [][]Link{in, out, append(in, out...), append(in, out...)}[f.random.IntN(4)]
	return f.sever(ctx, links)
}

func (f *injector) cutPair(ctx context.Context) error {
	i := f.any()
	a, b := f.cluster.Members[i].Name, f.cluster.Members[(i+1)%len(f.ids)].Name
	links := []Link{{a, b}, {b, a}}
	return f.sever(ctx, links[:1+f.random.IntN(2)])
}

func (f *injector) sever(ctx context.Context, links []Link) error {
	f.proxies.Set([]Fate{Cut, Frozen}[f.random.IntN(2)], links...)
	err := f.hold(ctx, f.between(200*time.Millisecond, 3*time.Second))
	f.proxies.Set(Whole, links...)
	return err
}

func (f *injector) defragment(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := pb.NewMaintenanceClient(f.endpoints[f.any()].conn).Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
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
		_, _ = pb.NewKVClient(f.endpoints[random.IntN(len(f.endpoints))].conn).Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: random.IntN(3) == 0})
		cancel()
	}
}
