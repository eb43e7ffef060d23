package ctl

import (
	"errors"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/ctl/print"
)

func newEndpoint(a *app) *cobra.Command {
	var cluster bool
	var rev int64
	sub := func(use, short string, run func(command, []string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Example: "  " + a.name + " endpoint " + use + " --cluster",
			RunE: func(*cobra.Command, []string) error {
				return a.long(func(c command) error {
					endpoints, err := c.chosen(cluster)
					if err != nil {
						return err
					}
					return run(c, endpoints)
				})
			},
		}
	}
	health := sub("health", "Tell whether the endpoints can serve, and how fast they answer", command.health)
	status := sub("status", "Show version, size, role and log position of the endpoints", command.status)
	hash := sub("hashkv", "Show a hash of each endpoint's keys, to compare members",
		func(c command, endpoints []string) error { return c.hashKV(endpoints, rev) })
	hash.Flags().Int64Var(&rev, "rev", 0, "hash the keys as of this revision (0 = now)")
	g := group("endpoint", "Look at single members, by their endpoints", hash, health, status)
	g.PersistentFlags().BoolVar(&cluster, "cluster", false, "ask all members, not only those of --endpoints")
	return g
}

// each calls do for every endpoint at the same time and waits for all.
func each(endpoints []string, do func(i int, endpoint string)) {
	var wait sync.WaitGroup
	for i, ep := range endpoints {
		wait.Go(func() { do(i, ep) })
	}
	wait.Wait()
}

func (c command) health(endpoints []string) error {
	all := make([]print.Health, len(endpoints))
	each(endpoints, func(i int, ep string) {
		start := time.Now()
		err := c.check(ep)
		all[i] = print.Health{Endpoint: ep, Health: err == nil, Took: time.Since(start).String()}
		if err != nil {
			all[i].Error = err.Error()
		}
	})
	sick := false
	for _, h := range all {
		if h.Health {
			continue
		}
		sick = true
		if c.Printer.Format() == print.Simple {
			c.warnf("%s is unhealthy: failed to commit proposal: %s\n", h.Endpoint, h.Error)
		}
	}
	if err := c.Printer.Health(all); err != nil {
		return err
	}
	if sick {
		return errors.New("unhealthy cluster")
	}
	return nil
}

// check is a read that needs a quorum, then a look at the alarms.
func (c command) check(endpoint string) error {
	one, err := c.At(endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := c.after()
	defer cancel()
	if _, err := one.Get(ctx, "health"); err != nil && !errors.Is(err, client.ErrPermissionDenied) {
		return err
	}
	r, err := one.Alarms(ctx)
	if err != nil {
		return errors.New("Unable to fetch the alarm list") //nolint:staticcheck // known text
	}
	if len(r.Alarms) == 0 {
		return nil
	}
	text := "Active Alarm(s): "
	for _, m := range r.Alarms {
		text += m.Alarm.String() + " "
	}
	return errors.New(text)
}

// gather asks all endpoints and keeps the answers in their order; the last
// failure is returned after all were told.
func gather[T any](c command, endpoints []string, what string, ask func(endpoint string) (T, error)) ([]T, error) {
	answers, errs := make([]T, len(endpoints)), make([]error, len(endpoints))
	each(endpoints, func(i int, ep string) { answers[i], errs[i] = ask(ep) })
	var good []T
	var last error
	for i, err := range errs {
		if err == nil {
			good = append(good, answers[i])
			continue
		}
		last = err
		c.warnf("Failed to get the %s of endpoint %s (%v)\n", what, endpoints[i], err)
	}
	return good, last
}

func (c command) status(endpoints []string) error {
	all, failed := gather(c, endpoints, "status", func(ep string) (print.Status, error) {
		ctx, cancel := c.after()
		defer cancel()
		r, err := c.Client.Status(ctx, ep)
		return print.Status{Endpoint: ep, Status: r}, err
	})
	if err := c.Printer.Status(all); err != nil {
		return err
	}
	if failed != nil {
		return &failure{code: exitError}
	}
	return nil
}

func (c command) hashKV(endpoints []string, rev int64) error {
	all, failed := gather(c, endpoints, "hash", func(ep string) (print.HashKV, error) {
		ctx, cancel := c.after()
		defer cancel()
		r, err := c.Client.HashKV(ctx, ep, rev)
		return print.HashKV{Endpoint: ep, HashKV: r}, err
	})
	if err := c.Printer.HashKV(all); err != nil {
		return err
	}
	return failed
}
