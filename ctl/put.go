package ctl

import (
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

type putFlags struct {
	lease                            string
	prevKV, ignoreValue, ignoreLease bool
}

func newPut(a *app) *cobra.Command {
	var f putFlags
	c := &cobra.Command{
		Use: "put <key> [value]", Short: "Write a key",
		Long: `Write a key. Without a value on the command line, all of standard input is the value.
Put -- before a key or a value that begins with a dash.`,
		Example: "  " + a.name + " put greeting hello",
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := f.request(args, a.Stdin)
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				answer, err := c.KV.Put(c.ctx, r)
				if err != nil {
					return err
				}
				return c.Printer.Put(answer)
			})
		},
	}
	f.register(c.Flags())
	return c
}

func (f *putFlags) register(s *pflag.FlagSet) {
	s.StringVar(&f.lease, "lease", "0", "`ID` (hexadecimal) of the lease that the key is to live with")
	s.BoolVar(&f.prevKV, "prev-kv", false, "also print what was there before")
	s.BoolVar(&f.ignoreValue, "ignore-value", false, "keep the value; change only the lease")
	s.BoolVar(&f.ignoreLease, "ignore-lease", false, "keep the lease; change only the value")
}

// request reads a missing value from in.
func (f *putFlags) request(args []string, in io.Reader) (*pb.PutRequest, error) {
	lease, err := strconv.ParseInt(f.lease, 16, 64)
	if err != nil {
		return nil, badArgs("bad lease ID (%w), expecting ID in Hex", err)
	}
	if len(args) == 0 {
		return nil, badArgs("put command needs 1 argument and input from stdin or 2 arguments")
	}
	r := &pb.PutRequest{
		Key: []byte(args[0]), Lease: lease, PrevKv: f.prevKV, IgnoreValue: f.ignoreValue, IgnoreLease: f.ignoreLease,
	}
	switch {
	case f.ignoreValue && len(args) > 1:
		return nil, badArgs("put command needs only 1 argument when 'ignore-value' is set")
	case f.ignoreValue:
	case len(args) > 1:
		r.Value = []byte(args[1])
	default:
		if r.Value, err = io.ReadAll(in); err != nil {
			return nil, fail(exitArgs, "read value from standard input: %w", err)
		}
		if len(r.Value) == 0 {
			return nil, badArgs("put command needs 1 argument and input from stdin or 2 arguments")
		}
	}
	return r, nil
}
