package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/ctl/bench"
)

// calmName is what -loads calls the measurement of calm. It takes minutes, so it runs only when named.
const calmName = "calm"

// calmed is what clients that do one thing a millisecond saw while something big went on.
type calmed struct {
	put, get float64 // ms between two answers, at most
	own      float64 // ms between two turns of a loop in this program that asks nobody: the machine's share
	took     float64 // s that the big thing took
}

func (c calmed) values() []float64 { return []float64{c.put, c.get, c.own, c.took} }

func (calmed) columns() string {
	return "put: longest gap ms | get: longest gap ms | no server: longest gap ms | it took s"
}

// calmStep is one big thing. Its preparation is not measured.
type calmStep struct {
	title   string
	prepare func(context.Context) error
	do      func(context.Context) error
}

// calmRun is one system while its calm is measured.
type calmRun struct {
	settings *settings
	system   *system
	client   *client.Client
	behind   int64 // the revision before those that the watcher is behind
}

// calm measures each system once, on one cluster of its own; the figures are maxima, so medians of rounds say little.
func (b *benchmark) calm(ctx context.Context, nodes int, t *table) (err error) {
	systems, err := b.start(nodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAll(systems)) }()
	var results [][]calmed // of each system, of each step
	for _, s := range systems {
		of, err := b.calmOf(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		results = append(results, of)
	}
	if err := t.head("while this happens", calmed{}); err != nil {
		return err
	}
	for step, title := range (&calmRun{settings: b.settings}).titles() {
		rows := make([][]calmed, len(systems))
		for i := range systems {
			rows[i] = results[i][step : step+1]
		}
		if err := addRows(t, title, rows); err != nil {
			return err
		}
	}
	return b.historyRead(ctx, systems[0])
}

// calmOf fills one system and takes it through the steps.
func (b *benchmark) calmOf(ctx context.Context, s *system) (all []calmed, err error) {
	c, err := client.New(client.Config{Endpoints: s.cluster.Endpoints()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r := &calmRun{settings: b.settings, system: s, client: c}
	if err := r.load(ctx, "bench/", b.settings.calmKeys, 256); err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	for _, step := range r.steps() {
		if err := step.prepare(ctx); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", step.title, err)
		}
		if err := b.awaitCalm(ctx, s.cluster); err != nil {
			return nil, err
		}
		measured, err := r.measure(ctx, step.do)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.title, err)
		}
		all = append(all, measured)
	}
	return all, nil
}

func (r *calmRun) titles() (all []string) {
	for _, s := range r.steps() {
		all = append(all, s.title)
	}
	return all
}

// steps are in the order in which one store can go through them; the last makes it large first.
func (r *calmRun) steps() []calmStep {
	s := r.settings
	nothing := func(context.Context) error { return nil }
	return []calmStep{
		{"nothing", nothing, func(ctx context.Context) error { return pause(ctx, s.duration) }},
		{fmt.Sprintf("compaction of %d of %d keys", s.calmKeys/5, s.calmKeys), r.overwrite, r.compact},
		{fmt.Sprintf("list of all %d keys", s.calmKeys), nothing, r.list},
		{fmt.Sprintf("a watcher %d revisions behind catches up", s.calmBehind), r.fallBehind, r.catchUp},
		{"snapshot save", nothing, r.snapshot},
		{fmt.Sprintf("defragmentation of %d MiB", s.calmMiB), r.enlarge, r.defragment},
	}
}

// load writes keys of a prefix, many in one transaction.
func (r *calmRun) load(ctx context.Context, prefix string, keys int64, size int) error {
	o := r.settings.options(bench.Range, 1, 1)
	o.Endpoints, o.Prefix, o.KeySpace, o.ValSize, o.Fill = r.system.cluster.Endpoints(), prefix, keys, size, true
	l, err := bench.Prepare(ctx, o)
	if err != nil {
		return err
	}
	l.Close()
	return nil
}

// overwrite gives a fifth of the keys a second version.
func (r *calmRun) overwrite(ctx context.Context) error {
	return r.load(ctx, "bench/", max(1, r.settings.calmKeys/5), 256)
}

// compact removes what overwrite has made useless, and waits until it is gone.
func (r *calmRun) compact(ctx context.Context) error {
	now, err := r.client.Get(ctx, "bench/", client.CountOnly())
	if err != nil {
		return err
	}
	_, err = r.client.Compact(ctx, now.Header.Revision, true)
	return err
}

// list reads every key in one answer, which is counted and not kept.
func (r *calmRun) list(ctx context.Context) error {
	o := r.settings.options(bench.Range, 1, 1)
	o.Endpoints, o.List, o.Total, o.Duration, o.CallMax = r.system.cluster.Endpoints(), true, 1, 0, calmStepMax
	l, err := bench.Prepare(ctx, o)
	if err != nil {
		return err
	}
	defer l.Close()
	report, err := l.Run(ctx, nil)
	if err == nil && report.Items != r.settings.calmKeys {
		err = fmt.Errorf("%d keys in the answer, %d expected", report.Items, r.settings.calmKeys)
	}
	return err
}

const behindPrefix = "behind/"

// fallBehind makes revisions one by one.
func (r *calmRun) fallBehind(ctx context.Context) error {
	now, err := r.client.Get(ctx, behindPrefix, client.CountOnly())
	if err != nil {
		return err
	}
	r.behind = now.Header.Revision
	o := r.settings.options(bench.Put, 500, 8)
	o.Endpoints, o.Prefix, o.KeySpace, o.ValSize = r.system.cluster.Endpoints(), behindPrefix, 100_000, 256
	o.Total, o.Duration = r.settings.calmBehind, 0
	l, err := bench.Prepare(ctx, o)
	if err != nil {
		return err
	}
	defer l.Close()
	report, err := l.Run(ctx, nil)
	if err == nil && report.Failed() > 0 {
		err = fmt.Errorf("%d puts failed: %v", report.Failed(), report.Errors)
	}
	return err
}

// catchUp watches from before those revisions until it has seen all of them.
func (r *calmRun) catchUp(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := r.client.Watch(ctx, behindPrefix, client.Prefix(), client.Revision(r.behind+1))
	for seen := int64(0); seen < r.settings.calmBehind; {
		answer, err := w.Next()
		if err != nil {
			return fmt.Errorf("after %d events: %w", seen, err)
		}
		seen += int64(len(answer.Events))
	}
	return nil
}

// snapshot reads a snapshot and throws it away: what the tool's own disk costs is not the server's.
func (r *calmRun) snapshot(ctx context.Context) (err error) {
	s, err := r.client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	_, err = io.Copy(io.Discard, s)
	return err
}

// enlarge writes values of 8 KiB until the database has its size.
func (r *calmRun) enlarge(ctx context.Context) error {
	const value = 8 << 10
	size, err := metrics(ctx, r.system.cluster.Members[0], "etcd_mvcc_db_total_size_in_bytes")
	if err != nil {
		return err
	}
	missing := float64(r.settings.calmMiB<<20) - size
	if missing <= 0 {
		return nil
	}
	return r.load(ctx, "large/", int64(missing)/(value+512)+1, value)
}

// defragment defragments the member that the gaps are measured on.
func (r *calmRun) defragment(ctx context.Context) error {
	return r.client.Defragment(ctx, r.system.cluster.Members[0].Endpoint())
}

// calmStepMax bounds one big thing.
const calmStepMax = 10 * time.Minute

// measure does one big thing while the probes run against the first member.
func (r *calmRun) measure(ctx context.Context, do func(context.Context) error) (calmed, error) {
	p, err := startProbes(ctx, r.system.cluster.Endpoints()[0])
	if err != nil {
		return calmed{}, err
	}
	if err := pause(ctx, probeLead); err != nil {
		return calmed{}, errors.Join(err, p.abandon())
	}
	doing, cancel := context.WithTimeout(ctx, calmStepMax)
	defer cancel()
	began := time.Now()
	if err := do(doing); err != nil {
		return calmed{}, errors.Join(err, p.abandon())
	}
	took := time.Since(began)
	if err := pause(ctx, probeLead); err != nil {
		return calmed{}, errors.Join(err, p.abandon())
	}
	result, err := p.end()
	result.took = math.Round(took.Seconds()*1000) / 1000
	return result, err
}

// historyRead says how much Kvorum read for the watcher. etcd does not count that.
func (b *benchmark) historyRead(ctx context.Context, s *system) error {
	read, err := metrics(ctx, s.cluster.Members[0], "kvorum_watch_history_records_total")
	if err != nil {
		return err
	}
	told, err := metrics(ctx, s.cluster.Members[0], "kvorum_watch_history_events_total")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(b.out, "\nFor the watcher that was behind, %s read %.0f records of history and found %.0f events in them; etcd does not count this.\n",
		s.name, read, told)
	return err
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
