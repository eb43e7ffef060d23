package ctl

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/client"
)

// load is a work load of check perf (writesPerSecond) or check datascale (keys).
type load struct{ writesPerSecond, clients, keys int }

// checkFlags are those that both checks have.
type checkFlags struct {
	size, prefix    string
	compact, defrag bool
}

func (f *checkFlags) register(s *pflag.FlagSet, prefix string) {
	s.StringVar(&f.prefix, "prefix", prefix, "write keys that begin with this; there must be none yet")
	s.BoolVar(&f.compact, "auto-compact", false, "afterwards, compact the history of the cluster")
	s.BoolVar(&f.defrag, "auto-defrag", false, "afterwards, defragment the endpoints")
}

const (
	checkTime         = 60 * time.Second
	checkSlowestMax   = 500 * time.Millisecond
	checkDeviationMax = 100 * time.Millisecond
	checkValueBytes   = 1024
	cleanUpMax        = time.Minute // deleting millions of keys takes a while
)

func newCheck(a *app) *cobra.Command {
	g := group("check", "Try out whether a cluster is fast and large enough, or a stopped member's data is sound", newCheckDatascale(a), newCheckPerf(a))
	withCheckData(a, g)
	return g
}

func newCheckPerf(a *app) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use: "perf", Short: "Write at a steady rate for a minute, and judge the delays",
		Example: "  " + a.name + " check perf --load=m",
		RunE: func(*cobra.Command, []string) error {
			l, err := loadOf(f.size)
			if err != nil {
				return err
			}
			return a.long(func(c command) error { return c.checkPerf(l, &f) })
		},
	}
	c.Flags().StringVar(&f.size, "load", "s", "`size`: s, m, l or xl for 150, 1000, 8000 or 15000 writes per second")
	f.register(c.Flags(), "/etcdctl-check-perf/")
	return c
}

func loadOf(size string) (load, error) {
	switch strings.ToLower(size) {
	case "s", "small":
		return load{150, 50, 10_000}, nil
	case "m", "medium":
		return load{1000, 200, 100_000}, nil
	case "l", "large":
		return load{8000, 500, 1_000_000}, nil
	case "xl", "xlarge":
		return load{15000, 1000, 3_000_000}, nil
	}
	return load{}, fail(exitFeature, "unknown load option %v", size)
}

// refuseKeys fails when there are keys that the clean-up would delete.
func (c command) refuseKeys(prefix string) error {
	ctx, cancel := c.after()
	defer cancel()
	r, err := c.Get(ctx, prefix, client.Prefix(), client.Limit(1))
	if err != nil {
		return err
	}
	if len(r.Kvs) > 0 {
		return fail(exitInput, "prefix %q has keys. Delete with `%s del --prefix %s` first", prefix, c.name, prefix)
	}
	return nil
}

// keysLeft ends an interrupted check.
func (c command) keysLeft(prefix string) error {
	return fail(exitInterrupted, "%w; delete what was written with `%s del --prefix %s`", errInterrupted, c.name, prefix)
}

func (c command) checkPerf(l load, f *checkFlags) error {
	if err := c.refuseKeys(f.prefix); err != nil {
		return err
	}
	m := c.write(l, f.prefix)
	if c.ctx.Err() != nil {
		return c.keysLeft(f.prefix)
	}
	if err := c.cleanUp(f); err != nil {
		return err
	}
	return c.judge(l, m)
}

// measured is what the writes took. Owned by one worker, then by the sum.
type measured struct {
	count        int
	failed       int
	sum, squares float64 // of seconds
	slowest      time.Duration
	firstFailure error
}

func (m *measured) add(o measured) {
	m.count += o.count
	m.failed += o.failed
	m.sum += o.sum
	m.squares += o.squares
	m.slowest = max(m.slowest, o.slowest)
	if m.firstFailure == nil {
		m.firstFailure = o.firstFailure
	}
}

// write puts keys at the rate of the load. Latency counts from the time a
// write was due, so that a stall is not hidden by the writes it holds up.
func (c command) write(l load, prefix string) (total measured) {
	ctx, cancel := context.WithTimeout(c.ctx, checkTime)
	defer cancel()
	value := strings.Repeat("x", checkValueBytes)
	start, gap := time.Now(), time.Second/time.Duration(l.writesPerSecond)
	var next atomic.Int64
	var wait sync.WaitGroup
	var mu sync.Mutex
	for range l.clients {
		wait.Go(func() {
			var m measured
			for ctx.Err() == nil {
				n := next.Add(1)
				due := start.Add(time.Duration(n) * gap)
				if sleepUntil(ctx, due) != nil {
					break
				}
				_, err := c.Put(ctx, prefix+randomName(n), value)
				if ctx.Err() != nil {
					break
				}
				m.note(time.Since(due), err)
			}
			mu.Lock()
			defer mu.Unlock()
			total.add(m)
		})
	}
	wait.Wait()
	return total
}

func (m *measured) note(took time.Duration, err error) {
	if err != nil {
		m.failed++
		m.firstFailure = err
		return
	}
	m.count++
	m.sum += took.Seconds()
	m.squares += took.Seconds() * took.Seconds()
	m.slowest = max(m.slowest, took)
}

// randomName spreads keys as random ones would be: 16 hexadecimal digits that
// follow from n.
func randomName(n int64) string {
	x := uint64(n) * 0x9e3779b97f4a7c15 //nolint:gosec // mixing bits
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[i] = digits[x>>(60-4*i)&15]
	}
	return string(b[:])
}

func sleepUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c command) cleanUp(f *checkFlags) error {
	ctx, cancel := context.WithTimeout(c.ctx, max(c.global.commandTimeout, cleanUpMax))
	defer cancel()
	r, err := c.Delete(ctx, f.prefix, client.Prefix())
	if err != nil {
		return err
	}
	if f.compact {
		rev := r.Header.GetRevision()
		if _, err := c.Compact(ctx, rev, false); err != nil {
			return err
		}
		c.printf("Compacted with revision %d\n", rev)
	}
	if f.defrag {
		for _, ep := range c.Endpoints() {
			c.printf("Defragmenting %q\n", ep)
			if err := c.Defragment(ctx, ep); err != nil {
				return err
			}
			c.printf("Defragmented %q\n", ep)
		}
	}
	return nil
}

func (c command) judge(l load, m measured) error {
	ok := true
	verdict := func(pass bool, good, bad string, value any) {
		if pass {
			c.printf("PASS: "+good+"\n", value)
		} else {
			ok = false
			c.printf("FAIL: "+bad+"\n", value)
		}
	}
	if m.failed > 0 {
		verdict(false, "", "%d writes failed, the first one with: "+strings.ReplaceAll(m.firstFailure.Error(), "%", "%%"), m.failed)
	}
	rate := int(math.Round(float64(m.count) / checkTime.Seconds()))
	n := math.Max(float64(m.count), 1)
	mean := m.sum / n
	deviation := math.Sqrt(math.Max(m.squares/n-mean*mean, 0))
	verdict(float64(rate) >= 0.9*float64(l.writesPerSecond), "Throughput is %d writes/s", "Throughput too low: %d writes/s", rate)
	verdict(m.slowest <= checkSlowestMax, "Slowest request took %fs", "Slowest request took too long: %fs", m.slowest.Seconds())
	verdict(deviation <= checkDeviationMax.Seconds(), "Stddev is %fs", "Stddev too high: %fs", deviation)
	if !ok {
		c.printf("FAIL\n")
		return &failure{code: exitError}
	}
	c.printf("PASS\n")
	return nil
}
