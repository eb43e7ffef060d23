package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/kvorum/kvorum/ctl/bench"
	"github.com/kvorum/kvorum/internal/process"
)

// benchmark is one run of the program.
type benchmark struct {
	settings *settings
	dir      string
	binaries []binary
	out      io.Writer
	args     []string
	counts   bool // instructions are counted
}

// system is one running cluster.
type system struct {
	name    string
	cluster *process.Cluster
	dir     string
}

func (s *system) stop() error {
	s.cluster.Stop()
	return os.RemoveAll(s.dir)
}

func (b *benchmark) run(ctx context.Context) error {
	if err := b.header(); err != nil {
		return err
	}
	for _, nodes := range b.settings.nodes {
		table := newTable(b.out, b.binaries)
		if err := table.begin(nodes); err != nil {
			return err
		}
		for group := range groups(b.settings) {
			if err := b.group(ctx, nodes, group, table); err != nil {
				return fmt.Errorf("%d nodes: %w", nodes, err)
			}
		}
		if err := b.others(ctx, nodes, table); err != nil {
			return err
		}
		if err := table.end(); err != nil {
			return err
		}
	}
	return nil
}

// others are what is measured in ways of their own.
func (b *benchmark) others(ctx context.Context, nodes int, t *table) error {
	for _, other := range []struct {
		name string
		do   func(context.Context, int, *table) error
	}{{kubernetesName, b.kubernetes}, {expireName, b.expire}, {restartName, b.restart}, {calmName, b.calm}} {
		if !b.settings.wanted(other.name) {
			continue
		}
		if err := other.do(ctx, nodes, t); err != nil {
			return fmt.Errorf("%d nodes, %s: %w", nodes, other.name, err)
		}
	}
	return nil
}

// groups are the wanted loads, those of one group together.
func groups(s *settings) func(yield func([]load) bool) {
	return func(yield func([]load) bool) {
		var group []load
		for _, l := range s.all() {
			if !s.wanted(l.name) {
				continue
			}
			if len(group) > 0 && group[0].group != l.group {
				if !yield(group) {
					return
				}
				group = nil
			}
			group = append(group, l)
		}
		if len(group) > 0 {
			yield(group)
		}
	}
}

// start starts one cluster of each system on fresh directories.
func (b *benchmark) start(nodes int) (all []*system, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, stopAll(all))
		}
	}()
	for _, binary := range b.binaries {
		dir, err := os.MkdirTemp(b.dir, "data")
		if err != nil {
			return all, err
		}
		path, err := filepath.Abs(binary.path)
		if err != nil {
			return all, err
		}
		cluster, err := process.Start(process.Options{
			Binary: path, Size: nodes, Dir: dir, Args: []string{"--quota-backend-bytes", fmt.Sprint(int64(16) << 30)},
		})
		if err != nil {
			return all, fmt.Errorf("start %s: %w", binary.name, err)
		}
		all = append(all, &system{binary.name, cluster, dir})
	}
	return all, nil
}

func stopAll(all []*system) error {
	var failures []error
	for _, s := range all {
		failures = append(failures, s.stop())
	}
	return errors.Join(failures...)
}

// group runs loads that share clusters.
func (b *benchmark) group(ctx context.Context, nodes int, group []load, table *table) (err error) {
	systems, err := b.start(nodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAll(systems)) }()
	for i, l := range group {
		// Loads of a group that need keys find those that the first has written.
		l.Fill = l.Fill && i == 0
		results, err := b.load(ctx, systems, l)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if err := table.add(l.title, results); err != nil {
			return err
		}
	}
	return nil
}

// load runs the rounds of one load, the systems in turn, each time beginning with another.
func (b *benchmark) load(ctx context.Context, systems []*system, l load) ([][]figures, error) {
	loads := make([]*bench.Load, len(systems))
	for i, s := range systems {
		o := l.Options
		o.Endpoints = s.cluster.Endpoints()
		prepared, err := bench.Prepare(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		defer prepared.Close()
		loads[i] = prepared
	}
	for _, s := range systems {
		if err := b.awaitCalm(ctx, s.cluster); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	results := make([][]figures, len(systems))
	for round := range b.settings.rounds {
		for turn := range systems {
			i := (turn + round) % len(systems)
			f, err := b.measure(ctx, systems[i].cluster, loads[i])
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", systems[i].name, round+1, err)
			}
			results[i] = append(results[i], f)
		}
	}
	return results, nil
}

// What a load has left to do (garbage, flushes, snapshots) must not be charged to the next one: awaitCalm waits until the
// servers use less than calmShare of a CPU, at most calmMax.
const (
	calmShare = 0.05
	calmMax   = 30 * time.Second
)

func (b *benchmark) awaitCalm(ctx context.Context, c *process.Cluster) error {
	look := time.NewTicker(b.settings.settle)
	defer look.Stop()
	last, err := cpu(c)
	for until := time.Now().Add(calmMax); err == nil && time.Now().Before(until); {
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		var now time.Duration
		if now, err = cpu(c); err == nil && float64(now-last) < calmShare*float64(b.settings.settle) {
			return nil
		}
		last = now
	}
	return err
}

// measure is one round, with the instructions it took where they can be counted.
func (b *benchmark) measure(ctx context.Context, c *process.Cluster, l *bench.Load) (figures, error) {
	if !b.counts {
		f, _, err := b.round(ctx, c, l)
		return f, err
	}
	p, err := startCounting(ctx, c)
	if err != nil {
		return figures{}, err
	}
	f, operations, err := b.round(ctx, c, l)
	count, failed := p.end()
	f.counted, f.instructions = true, count/1000/operations
	return f, errors.Join(err, failed)
}

// round is one round, and how many operations it had.
func (b *benchmark) round(ctx context.Context, c *process.Cluster, l *bench.Load) (figures, float64, error) {
	before, err := spent(ctx, c, false)
	if err != nil {
		return figures{}, 0, err
	}
	report, err := l.Run(ctx, nil)
	if err != nil {
		return figures{}, 0, err
	}
	if failed := report.Failed(); failed > 0 {
		return figures{}, 0, fmt.Errorf("%d operations failed: %v", failed, report.Errors)
	}
	select {
	case <-time.After(b.settings.settle):
	case <-ctx.Done():
		return figures{}, 0, ctx.Err()
	}
	after, err := spent(ctx, c, true)
	if err != nil {
		return figures{}, 0, err
	}
	rss, err := memory(c)
	if err != nil {
		return figures{}, 0, err
	}
	paid, n := after.minus(before), float64(report.Operations)
	return figures{
		throughput: report.Throughput, p50: report.Latency.P50, p99: report.Latency.P99,
		cpu: float64(paid.cpu.Microseconds()) / n, memory: rss / (1 << 20),
		fsyncs: paid.fsyncs / n, written: paid.written / 1024 / n,
	}, n, nil
}
