package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/ctl/bench"
)

// restarted is what a store of many keys costs at rest and at a start.
type restarted struct {
	filled   float64 // MiB resident after the keys were written
	perKey   float64 // bytes resident per key and member after a start
	memory   float64 // MiB resident after a start
	ready    float64 // s until the member serves
	cpu      float64 // CPU s until then
	database float64 // MiB
}

func (r restarted) values() []float64 {
	return []float64{r.filled, r.memory, r.perKey, r.ready, r.cpu, r.database}
}

func (restarted) columns() string {
	return "RSS MiB when written | RSS MiB after restart | bytes per key | s until it serves | CPU s until it serves | database MiB"
}

// restart fills each system with keys of 256-byte values, stops it, and starts it again, round after round.
func (b *benchmark) restart(ctx context.Context, nodes int, t *table) (err error) {
	systems, err := b.start(nodes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAll(systems)) }()
	filled := make([]float64, len(systems))
	for i, s := range systems {
		if filled[i], err = b.fill(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	results := make([][]restarted, len(systems))
	for round := range b.settings.rounds {
		for turn := range systems {
			i := (turn + round) % len(systems)
			r, err := b.restartOne(ctx, systems[i])
			if err != nil {
				return fmt.Errorf("%s: %w", systems[i].name, err)
			}
			r.filled = filled[i] / float64(nodes)
			results[i] = append(results[i], r)
		}
	}
	return t.addRestart(b.settings.bigKeys, results)
}

// fill writes the keys and returns the MiB resident afterwards.
func (b *benchmark) fill(ctx context.Context, s *system) (float64, error) {
	o := b.settings.options(bench.Range, 1, 1)
	o.Endpoints, o.KeySpace, o.ValSize, o.Fill = s.cluster.Endpoints(), b.settings.bigKeys, 256, true
	l, err := bench.Prepare(ctx, o)
	if err != nil {
		return 0, err
	}
	l.Close()
	rss, err := memory(s.cluster)
	return rss / (1 << 20), err
}

// restartOne stops the first member and starts it again.
func (b *benchmark) restartOne(ctx context.Context, s *system) (restarted, error) {
	m := s.cluster.Members[0]
	if !m.Terminate() {
		return restarted{}, errors.New("the server did not stop when asked to")
	}
	began := time.Now()
	if err := m.Start(); err != nil {
		return restarted{}, err
	}
	took := time.Since(began)
	used, err := cpuOf(m.PID())
	if err != nil {
		return restarted{}, err
	}
	kib, err := procNumber(m.PID(), "status", "VmRSS")
	if err != nil {
		return restarted{}, err
	}
	size, err := metrics(ctx, m, "etcd_mvcc_db_total_size_in_bytes")
	if err != nil {
		return restarted{}, err
	}
	return restarted{
		memory: kib / 1024, perKey: kib * 1024 / float64(b.settings.bigKeys),
		ready: took.Seconds(), cpu: used.Seconds(), database: size / (1 << 20),
	}, nil
}
