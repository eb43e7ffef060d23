package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/ctl/bench"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// expireName is what -loads calls the leases that end all at once.
const expireName = "expire"

// expired is what the end of many leases at once was like.
type expired struct {
	perSecond     float64
	before, while float64 // ms, p99 of puts before the leases end and while they do
	took, cpu     float64 // s, µs per lease
}

func (e expired) values() []float64 {
	return []float64{e.perSecond, e.before, e.while, e.took, e.cpu}
}

func (expired) columns() string {
	return throughputColumn + " | put p99 ms before | put p99 ms while | it took s | server CPU µs/op"
}

const (
	expireGranters = 200
	expireMax      = 5 * time.Minute
	expireLook     = 50 * time.Millisecond
)

// expire lets leases, each with a key, end at once: the servers are stopped (SIGSTOP) until the time of all of them is
// up. Each system goes through it once per round, on the same cluster.
func (b *benchmark) expire(ctx context.Context, nodes int, t *table) (err error) {
	systems, err := b.start(nodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAll(systems)) }()
	results := make([][]expired, len(systems))
	for round := range b.settings.expireRounds {
		for turn := range systems {
			i := (turn + round) % len(systems)
			e, err := b.expireOne(ctx, systems[i])
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", systems[i].name, round+1, err)
			}
			results[i] = append(results[i], e)
		}
	}
	if err := t.head("leases that end at once", expired{}); err != nil {
		return err
	}
	return addRows(t, fmt.Sprintf("%d leases with a key each", b.settings.leases), results)
}

func (b *benchmark) expireOne(ctx context.Context, s *system) (e expired, err error) {
	const revokedTotal = "etcd_debugging_lease_revoked_total"
	leader := s.cluster.Members[0]
	revoked, err := metrics(ctx, leader, revokedTotal)
	if err != nil {
		return e, err
	}
	if err := b.grant(ctx, s); err != nil {
		return e, fmt.Errorf("grant: %w", err)
	}
	early, err := metrics(ctx, leader, revokedTotal)
	if err != nil {
		return e, err
	}
	if early > revoked {
		return e, fmt.Errorf("%.0f leases ended before all were granted: give a longer -lease-ttl", early-revoked)
	}
	o := b.settings.options(bench.Put, 50, 4)
	o.Endpoints, o.Rate, o.Duration, o.CallMax = s.cluster.Endpoints(), 500, max(b.settings.duration, time.Second), expireMax
	before, err := putP99(ctx, o)
	if err != nil {
		return e, err
	}
	if err := sleepUntilExpired(ctx, s, time.Duration(b.settings.leaseTTL+1)*time.Second); err != nil {
		return e, err
	}
	began := time.Now()
	used, err := cpu(s.cluster)
	if err != nil {
		return e, err
	}
	// The puts go on for as long as the leases end.
	putting, stop := context.WithCancel(ctx)
	defer stop()
	var while float64
	var failed error
	var group sync.WaitGroup
	o.Duration = expireMax
	group.Go(func() { while, failed = putP99(putting, o) })
	err = awaitMetric(ctx, func() (float64, error) { return metrics(ctx, leader, revokedTotal) }, revoked+float64(b.settings.leases))
	took := time.Since(began)
	stop()
	group.Wait()
	if err = errors.Join(err, failed); err != nil {
		return e, err
	}
	after, err := cpu(s.cluster)
	n := float64(b.settings.leases)
	return expired{
		perSecond: n / took.Seconds(), before: before, while: while, took: math.Round(took.Seconds()*100) / 100,
		cpu: float64((after - used).Microseconds()) / n,
	}, err
}

// putP99 is the p99 of steady puts in ms; when ctx ends first, of those until then, and not a number if none was answered.
func putP99(ctx context.Context, o bench.Options) (float64, error) {
	l, err := bench.Prepare(context.WithoutCancel(ctx), o)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	report, err := l.Run(ctx, nil)
	if err != nil {
		return 0, err
	}
	if report.Operations == 0 {
		return math.NaN(), nil
	}
	return report.Latency.P99, nil
}

// grant makes the leases and puts a key under each.
func (b *benchmark) grant(ctx context.Context, s *system) (err error) {
	c, err := client.New(client.Config{Endpoints: s.cluster.Endpoints()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var next atomic.Int64
	var group sync.WaitGroup
	failures := make([]error, expireGranters)
	for i := range expireGranters {
		group.Go(func() {
			for n := next.Add(1); n <= b.settings.leases && failures[i] == nil; n = next.Add(1) {
				failures[i] = grantOne(ctx, c, n, b.settings.leaseTTL)
			}
		})
	}
	group.Wait()
	return errors.Join(failures...)
}

func grantOne(ctx context.Context, c *client.Client, n, ttl int64) error {
	lease, err := c.Leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
	if err != nil {
		return err
	}
	_, err = c.Put(ctx, fmt.Sprintf("lease/%d", n), "", client.Lease(lease.ID))
	return err
}

// sleepUntilExpired stops the servers until every lease has run out of time.
func sleepUntilExpired(ctx context.Context, s *system, d time.Duration) error {
	for _, m := range s.cluster.Members {
		m.Signal(syscall.SIGSTOP)
	}
	err := pause(ctx, d)
	for _, m := range s.cluster.Members {
		m.Signal(syscall.SIGCONT)
	}
	return err
}

// awaitMetric looks until the number is at least want.
func awaitMetric(ctx context.Context, read func() (float64, error), want float64) error {
	ctx, cancel := context.WithTimeout(ctx, expireMax)
	defer cancel()
	look := time.NewTicker(expireLook)
	defer look.Stop()
	for {
		now, err := read()
		if err != nil || now >= want {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%.0f of %.0f after %s: %w", now, want, expireMax, ctx.Err())
		}
	}
}
