package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"
)

// memoryMetric is what a member says of its own memory.
const memoryMetric = "process_resident_memory_bytes"

func newCheckDatascale(a *app) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use: "datascale", Short: "Fill a member with keys, and tell how much memory they take",
		Example: "  " + a.name + " check datascale --load s",
		RunE: func(*cobra.Command, []string) error {
			l, err := loadOf(f.size)
			if err != nil {
				return err
			}
			return a.long(func(c command) error { return c.checkDatascale(l, &f) })
		},
	}
	c.Flags().StringVar(&f.size, "load", "s", "`size`: s, m, l or xl for 10 000, 100 000, 1 000 000 or 3 000 000 keys")
	f.register(c.Flags(), "/etcdctl-check-datascale/")
	return c
}

func (c command) checkDatascale(l load, f *checkFlags) error {
	if err := c.refuseKeys(f.prefix); err != nil {
		return err
	}
	before, err := c.memory()
	if err != nil {
		return err
	}
	c.printf("Start data scale check for work load [%d key-value pairs, %d bytes per key-value, %d concurrent clients].\n",
		l.keys, checkValueBytes, l.clients)
	failed := c.fill(l, f.prefix)
	if c.ctx.Err() != nil {
		return c.keysLeft(f.prefix)
	}
	after, unread := c.memory()
	if err := c.cleanUp(f); err != nil {
		return err
	}
	if err := errors.Join(failed, unread); err != nil {
		c.printf("FAIL: %v\n", err)
		return &failure{code: exitError}
	}
	c.printf("PASS: Approximate system memory used : %.2f MB.\n", (after-before)/(1<<20))
	return nil
}

// fill writes all keys of a load as fast as they are taken.
func (c command) fill(l load, prefix string) error {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	value := strings.Repeat("x", checkValueBytes)
	bar := c.progress("writing", int64(l.keys)*checkValueBytes)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range l.clients {
		wait.Go(func() {
			for n := next.Add(1); n <= int64(l.keys) && ctx.Err() == nil; n = next.Add(1) {
				if _, err := c.Put(ctx, prefix+randomName(n), value); err != nil {
					cancel(fmt.Errorf("write number %d: %w", n, err))
					return
				}
				bar.add(checkValueBytes)
			}
		})
	}
	wait.Wait()
	bar.done()
	return context.Cause(ctx)
}

// memory asks the first endpoint.
func (c command) memory() (float64, error) {
	ctx, cancel := c.after()
	defer cancel()
	fresh, err := c.tlsConfig()
	if err != nil {
		return 0, err
	}
	url := c.Endpoints()[0]
	if !strings.Contains(url, "://") {
		url = "http://" + url
		if fresh != nil {
			url = "https" + strings.TrimPrefix(url, "http")
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{}
	if fresh != nil {
		transport.TLSClientConfig = fresh()
	}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", memoryMetric, err)
	}
	defer func() { _ = answer.Body.Close() }()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if figure, found := strings.CutPrefix(lines.Text(), memoryMetric+" "); found {
			return strconv.ParseFloat(figure, 64)
		}
	}
	return 0, fmt.Errorf("%s/metrics has no %s", url, memoryMetric)
}
