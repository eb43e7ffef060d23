package ctl

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/ctl/print"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

type getFlags struct {
	consistency, order, sortBy                 string
	limit, rev                                 int64
	prefix, fromKey                            bool
	keysOnly, countOnly, valueOnly, stream     bool
	minCreate, maxCreate, minModify, maxModify int64
}

func newGet(a *app) *cobra.Command {
	var f getFlags
	c := &cobra.Command{
		Use: "get <key> [end]", Short: "Read a key, or the keys from one up to another",
		Example: "  " + a.name + " get --prefix --keys-only /services/",
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := f.request(args)
			if err != nil {
				return err
			}
			return a.online(func(c command) error { return f.run(c, r) })
		},
	}
	f.register(c.Flags())
	return c
}

func (f *getFlags) register(s *pflag.FlagSet) {
	s.StringVar(&f.consistency, "consistency", "l", "l: nothing older than now; s: what the member has, asking nobody")
	s.StringVar(&f.order, "order", "", "ASCEND or DESCEND")
	s.StringVar(&f.sortBy, "sort-by", "", "sort by CREATE (revision), KEY, MODIFY (revision), VALUE or VERSION")
	s.Int64Var(&f.limit, "limit", 0, "stop after this many keys (0 = all)")
	s.BoolVar(&f.prefix, "prefix", false, "all keys that begin with <key>")
	s.BoolVar(&f.fromKey, "from-key", false, "<key> and all keys that sort after it, byte by byte")
	s.Int64Var(&f.rev, "rev", 0, "read as of this revision (0 = now)")
	s.BoolVar(&f.keysOnly, "keys-only", false, "leave the values out")
	s.BoolVar(&f.countOnly, "count-only", false, "tell only how many keys there are (with -w fields)")
	s.BoolVar(&f.valueOnly, "print-value-only", false, "leave the keys out (with -w simple)")
	s.Int64Var(&f.minCreate, "min-create-rev", 0, "skip keys created before this revision")
	s.Int64Var(&f.maxCreate, "max-create-rev", 0, "skip keys created after this revision")
	s.Int64Var(&f.minModify, "min-mod-rev", 0, "skip keys last changed before this revision")
	s.Int64Var(&f.maxModify, "max-mod-rev", 0, "skip keys last changed after this revision")
	s.BoolVar(&f.stream, "stream", false, "receive a large answer in pieces (RangeStream)")
}

func (f *getFlags) run(c command, r *pb.RangeRequest) error {
	if f.countOnly && c.Printer.Format() != print.Fields {
		return badArgs("--count-only is only for `--write-out=fields`")
	}
	if f.valueOnly && c.Printer.Format() != print.Simple {
		return badArgs("print-value-only is only for `--write-out=simple`")
	}
	c.Printer.ValueOnly = f.valueOnly
	answer := &pb.RangeResponse{}
	var err error
	if f.stream {
		err = c.GetStream(c.ctx, r, func(chunk *pb.RangeResponse) error {
			answer.Kvs = append(answer.Kvs, chunk.GetKvs()...)
			if chunk.GetHeader() != nil {
				answer.Header, answer.More, answer.Count = chunk.Header, chunk.More, chunk.Count
			}
			return nil
		})
	} else {
		answer, err = c.KV.Range(c.ctx, r)
	}
	if err != nil {
		return err
	}
	return c.Printer.Get(answer)
}

// request checks everything that needs no server.
func (f *getFlags) request(args []string) (*pb.RangeRequest, error) {
	if len(args) == 0 {
		return nil, badArgs("get command needs one argument as key and an optional argument as range_end")
	}
	span, err := rangeOptions(f.prefix, f.fromKey, args)
	if err != nil {
		return nil, err
	}
	r := client.GetRequest(args[0], span...)
	switch f.consistency {
	case "s":
		r.Serializable = true
	case "l":
	default:
		return nil, fail(exitFeature, "unknown consistency flag %q", f.consistency)
	}
	order := strings.ToUpper(f.order)
	switch order {
	case "", "ASCEND", "DESCEND":
		r.SortOrder = pb.RangeRequest_SortOrder(pb.RangeRequest_SortOrder_value[order])
	default:
		return nil, fail(exitFeature, "bad sort order %s", f.order)
	}
	if r.SortTarget, err = sortTarget(f.sortBy); err != nil {
		return nil, err
	}
	r.Limit, r.Revision, r.KeysOnly, r.CountOnly = f.limit, f.rev, f.keysOnly, f.countOnly
	r.MinCreateRevision, r.MaxCreateRevision = f.minCreate, f.maxCreate
	r.MinModRevision, r.MaxModRevision = f.minModify, f.maxModify
	return r, nil
}

// sortTarget is MODIFY here where the API says MOD.
func sortTarget(text string) (pb.RangeRequest_SortTarget, error) {
	switch strings.ToUpper(text) {
	case "", "KEY":
		return pb.RangeRequest_KEY, nil
	case "VERSION":
		return pb.RangeRequest_VERSION, nil
	case "CREATE":
		return pb.RangeRequest_CREATE, nil
	case "MODIFY":
		return pb.RangeRequest_MOD, nil
	case "VALUE":
		return pb.RangeRequest_VALUE, nil
	}
	return 0, fail(exitFeature, "bad sort target %s", text)
}

// rangeOptions turns the flags and the optional second argument into a range.
func rangeOptions(prefix, fromKey bool, args []string) ([]client.Option, error) {
	switch {
	case prefix && fromKey:
		return nil, badArgs("`--prefix` and `--from-key` cannot be set at the same time, choose one")
	case (prefix || fromKey) && len(args) > 1:
		return nil, badArgs("too many arguments, only accept one argument when `--prefix` or `--from-key` is set")
	case prefix:
		return []client.Option{client.Prefix()}, nil
	case fromKey:
		return []client.Option{client.FromKey()}, nil
	case len(args) > 1:
		return []client.Option{client.End(args[1])}, nil
	}
	return nil, nil
}
