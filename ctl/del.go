package ctl

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

type delFlags struct{ prefix, fromKey, prevKV, span bool }

func newDel(a *app) *cobra.Command {
	var f delFlags
	c := &cobra.Command{
		Use: "del <key> [end]", Short: "Delete a key, or the keys from one up to another",
		Example: "  " + a.name + " del --prefix /services/old/",
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := f.request(args)
			if err != nil {
				return err
			}
			if len(args) > 1 && !f.span {
				a.warnf("Warning: Keys between %q and %q will be deleted. Please interrupt the command within next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.\n", args[0], args[1])
				if err := a.pause(2 * time.Second); err != nil {
					return err
				}
			}
			return a.online(func(c command) error {
				answer, err := c.KV.DeleteRange(c.ctx, r)
				if err != nil {
					return err
				}
				return c.Printer.Delete(answer)
			})
		},
	}
	f.register(c.Flags())
	return c
}

func (f *delFlags) register(s *pflag.FlagSet) {
	s.BoolVar(&f.prefix, "prefix", false, "all keys that begin with <key>")
	s.BoolVar(&f.prevKV, "prev-kv", false, "also print what was deleted")
	s.BoolVar(&f.fromKey, "from-key", false, "<key> and all keys that sort after it, byte by byte")
	s.BoolVar(&f.span, "range", false, "do not wait two seconds before deleting from <key> up to <end>")
}

func (f *delFlags) request(args []string) (*pb.DeleteRangeRequest, error) {
	if len(args) == 0 {
		return nil, badArgs("del command needs one argument as key and an optional argument as range_end")
	}
	span, err := rangeOptions(f.prefix, f.fromKey, args)
	if err != nil {
		return nil, err
	}
	r := client.DeleteRequest(args[0], span...)
	r.PrevKv = f.prevKV
	return r, nil
}

// pause waits, or returns an error when interrupted.
func (a *app) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-a.ctx.Done():
		return &failure{exitInterrupted, errInterrupted}
	}
}
