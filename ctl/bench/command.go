package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Command is `bench`, to be mounted under a command that has the control tool's global flags: --endpoints, --write-out,
// the TLS files, --user and --password. Those it lacks have their defaults.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench <load>",
		Short: "Put load on a cluster and measure throughput and delays",
		Long: `Put load on a cluster and measure throughput and delays.

Without --rate the loop is closed: --clients calls are always in flight, and a server that
stalls delays the calls behind it unseen. With --rate calls start on a timetable, and each is
measured from the moment it was due, so that a stall is charged to every call that waited.

The same --seed repeats the same keys and values. Keys stay in the cluster under --prefix;
"del --prefix" removes them. Ctrl-C ends a run early. -w json and -w csv print for programs,
--html writes a page with charts, and --compare runs two clusters in turn, so that what else
the machine does meets both.`,
		Example: `  kvctl bench put --compare 10.0.0.7:2379 --rounds 5 --clients 100`,
	}
	for _, load := range loads() {
		cmd.AddCommand(loadCommand(load))
	}
	return cmd
}

// load is how a load appears on the command line.
type load struct {
	kind  Kind
	short string
	args  string // of the example
	flags func(*pflag.FlagSet, *Options)
}

func loads() []load {
	none := func(*pflag.FlagSet, *Options) {}
	watch := func(f *pflag.FlagSet, o *Options) {
		f.IntVar(&o.Watchers, "watchers", o.Watchers, "watchers in all; watcher i watches key i modulo --key-space-size")
		f.IntVar(&o.Streams, "streams", o.Streams, "watch streams that the watchers are spread over")
	}
	return []load{
		{Put, "Write keys", "--clients 100 --conns 10 --total 100000", none},
		{Range, "Read keys: one at a time, or with --list all that the load wrote", "--rate 5000 --duration 30s --html range.html", func(f *pflag.FlagSet, o *Options) {
			f.BoolVar(&o.List, "list", o.List, "read all keys under --prefix with each operation")
			f.Int64Var(&o.Limit, "limit", o.Limit, "at most this many keys per answer; 0 = all")
			f.BoolVar(&o.CountOnly, "count-only", o.CountOnly, "ask for the count only")
			f.BoolVar(&o.KeysOnly, "keys-only", o.KeysOnly, "ask for keys without values")
			readFlags(f, o)
		}},
		{Txn, "Compare, write and read in transactions", "--txn-puts 3 --clients 20", func(f *pflag.FlagSet, o *Options) {
			f.IntVar(&o.TxnCompares, "txn-compares", o.TxnCompares, "compares per transaction (they always hold)")
			f.IntVar(&o.TxnPuts, "txn-puts", o.TxnPuts, "puts per transaction")
			f.IntVar(&o.TxnRanges, "txn-ranges", o.TxnRanges, "reads per transaction")
		}},
		{Mixed, "Read and write keys", "--read-ratio 0.9 --clients 50", func(f *pflag.FlagSet, o *Options) {
			f.Float64Var(&o.ReadRatio, "read-ratio", o.ReadRatio, "share of reads, 0 to 1")
			readFlags(f, o)
		}},
		{Watch, "Write watched keys and count events; --total and --rate count puts", "--watchers 1000 --streams 10 --total 5000", watch},
		{WatchLatency, "Measure the time from put to event at a low rate; --total and --rate count puts", "--rate 50 --duration 30s", watch},
		{LeaseKeepAlive, "Renew leases", "--leases 1000 --clients 10", func(f *pflag.FlagSet, o *Options) {
			f.IntVar(&o.Leases, "leases", o.Leases, "leases in all, renewed in turn")
		}},
	}
}

func readFlags(f *pflag.FlagSet, o *Options) {
	f.BoolVar(&o.Serializable, "serializable", o.Serializable, "answer from the member's own state, without asking the others")
	f.BoolVar(&o.Fill, "fill", o.Fill, "write the whole key space first, unmeasured")
}

// output is where and how results are written.
type output struct {
	html    string
	compare []string
	rounds  int
}

func loadCommand(l load) *cobra.Command {
	o, out := Defaults(l.kind), &output{rounds: 5}
	cmd := &cobra.Command{
		Use: string(l.kind), Short: l.short, Args: cobra.NoArgs, SilenceUsage: true,
		Example: "  kvctl bench " + string(l.kind) + " " + l.args,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Duration > 0 && !cmd.Flags().Changed("total") {
				o.Total = 0
			}
			return runCommand(cmd, o, out)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Clients, "clients", o.Clients, "calls in flight at most")
	f.IntVar(&o.Conns, "conns", o.Conns, "TCP connections, spread over the endpoints")
	f.Float64Var(&o.Rate, "rate", o.Rate, "operations started per second; 0 = as fast as answers come")
	f.Int64Var(&o.Total, "total", o.Total, "operations; with --duration alone there is no limit")
	f.DurationVar(&o.Duration, "duration", o.Duration, "start no operation after this time")
	f.DurationVar(&o.CallMax, "call-timeout", o.CallMax, "an operation that takes longer has failed")
	f.StringVar(&o.Prefix, "prefix", o.Prefix, "all keys of the load begin with it")
	f.IntVar(&o.KeySize, "key-size", o.KeySize, "bytes")
	f.IntVar(&o.ValSize, "val-size", o.ValSize, "bytes")
	f.Int64Var(&o.KeySpace, "key-space-size", o.KeySpace, "number of different keys")
	f.BoolVar(&o.Sequential, "sequential-keys", o.Sequential, "use the keys in turn, not at random")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "of the random keys and values: the same seed repeats them")
	f.StringVar(&out.html, "html", "", "also write a page with latency and throughput over time to this file")
	f.StringSliceVar(&out.compare, "compare", nil, "endpoints of a second cluster: alternate rounds, print ratios")
	f.IntVar(&out.rounds, "rounds", out.rounds, "rounds per cluster with --compare")
	l.flags(f, &o)
	return cmd
}

// runCommand runs the load as the flags say and writes what came of it.
func runCommand(cmd *cobra.Command, o Options, out *output) error {
	format, err := fromParent(cmd, &o)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	line := newProgress(cmd.ErrOrStderr(), &o)
	defer line.clear()
	if len(out.compare) > 0 {
		return runCompare(ctx, cmd, o, out, format, line)
	}
	load, err := Prepare(ctx, o)
	if err != nil {
		return err
	}
	defer load.Close()
	report, err := load.Run(ctx, line.show(string(o.Kind)))
	if err != nil {
		return err
	}
	line.clear()
	if err := report.write(cmd.OutOrStdout(), format); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return writeFile(out.html, report.writeHTML)
}

func runCompare(ctx context.Context, cmd *cobra.Command, a Options, out *output, format Format, line *progress) error {
	if out.rounds < 1 {
		return errors.New("--rounds must be at least 1")
	}
	b := a
	b.Endpoints = out.compare
	c, err := Compare(ctx, a, b, out.rounds, func(side string, round int) func(Point, time.Duration) {
		return line.show(fmt.Sprintf("%s %d/%d", side, round, out.rounds))
	})
	if err != nil {
		return err
	}
	line.clear()
	if err := c.write(cmd.OutOrStdout(), format); err != nil {
		return fmt.Errorf("write the comparison: %w", err)
	}
	return writeFile(out.html, c.writeHTML)
}

// writeFile writes a page; no name, no page.
func writeFile(name string, write func(io.Writer) error) (err error) {
	if name == "" {
		return nil
	}
	file, err := os.Create(name) //nolint:gosec // the user names the file
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := write(file); err != nil {
		return fmt.Errorf("write the page %s: %w", name, err)
	}
	return nil
}

// fromParent takes what the control tool's global flags say.
func fromParent(cmd *cobra.Command, o *Options) (Format, error) {
	text := func(name string) string {
		if f := cmd.Flag(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	if f := cmd.Flag("endpoints"); f != nil {
		o.Endpoints = listValue(f)
	}
	o.User, o.Password = text("user"), text("password")
	if name, password, found := strings.Cut(o.User, ":"); found && o.Password == "" {
		o.User, o.Password = name, password
	}
	var err error
	o.TLS, err = tlsConfig(tlsFiles{
		ca: text("cacert"), cert: text("cert"), key: text("key"),
		plain: text("insecure-transport") != "false", skipVerify: text("insecure-skip-tls-verify") == "true",
	})
	if err != nil {
		return "", err
	}
	return parseFormat(text("write-out"))
}

// listValue reads a flag that is a list, or a text with commas.
func listValue(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	return strings.Split(f.Value.String(), ",")
}

// tlsFiles are the TLS flags.
type tlsFiles struct {
	ca, cert, key     string
	plain, skipVerify bool
}

// tlsConfig is nil when nothing asks for TLS.
func tlsConfig(f tlsFiles) (*tls.Config, error) {
	if f.ca == "" && f.cert == "" && f.key == "" && f.plain && !f.skipVerify {
		return nil, nil //nolint:nilnil // nil means no TLS
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.skipVerify} //nolint:gosec // asked for by the user
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("read --cacert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--cacert %s holds no PEM certificate", f.ca)
		}
	}
	if f.cert != "" || f.key != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("read --cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// progress is one line on a terminal that is written over and over; in a pipe it is silent.
type progress struct {
	out      io.Writer // nil: silent
	total    int64
	duration time.Duration
	seen     int64
}

func newProgress(out io.Writer, o *Options) *progress {
	p := &progress{total: o.Total, duration: o.Duration}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.out = out
	}
	if o.watches() {
		p.total = 0 // the total counts puts, the points count events
	}
	return p
}

// show starts a new line of progress.
func (p *progress) show(name string) func(Point, time.Duration) {
	if p.out == nil {
		return nil
	}
	p.seen = 0
	return func(point Point, at time.Duration) {
		p.seen += point.Operations
		share := ""
		switch {
		case p.total > 0:
			share = fmt.Sprintf("%3.0f%%  ", 100*float64(p.seen)/float64(p.total))
		case p.duration > 0:
			share = fmt.Sprintf("%3.0f%%  ", 100*min(at.Seconds()/p.duration.Seconds(), 1))
		}
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s  %s%d done  %.0f/s  p50 %s ms  p99 %s ms  failed %d",
			name, share, p.seen, point.Throughput, figure(point.P50), figure(point.P99), point.Errors)
	}
}

func (p *progress) clear() {
	if p.out != nil {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
}
