package v2

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const (
	benchClients = 64
	benchRounds  = 7
	benchRound   = 2 * time.Second
	benchKeys    = 1000
	benchValue   = "0123456789abcdef"
)

// BenchmarkAgainstEtcd measures set and get of Kvorum and of etcd 3.4, and put
// and get of Kvorum's v3 API, in turns: what disturbs the machine disturbs all.
// The figures are medians of the rounds.
//
//	go test -run '^$' -bench Etcd -benchtime 1x ./integration/v2
func BenchmarkAgainstEtcd(b *testing.B) {
	kvorum := start(b, process.Options{Binary: kvorumBinary(b), Size: 1}).Members[0]
	slow := start(b, process.Options{Binary: kvorumBinary(b), Size: 1, Args: []string{"--host-whitelist", "127.0.0.1"}}).Members[0] // nothing is direct
	etcd := start(b, process.Options{Binary: debianEtcd(b), Size: 1, Args: []string{"--enable-v2"}}).Members[0]
	loads := []*work{
		{name: "kvorum set", member: kvorum, client: v2Client(b, kvorum, v2Set)},
		{name: "etcd set", member: etcd, client: v2Client(b, etcd, v2Set)},
		{name: "kvorum get", member: kvorum, client: v2Client(b, kvorum, v2Get)},
		{name: "etcd get", member: etcd, client: v2Client(b, etcd, v2Get)},
		{name: "by net/http: set", member: slow, client: v2Client(b, slow, v2Set)},
		{name: "by net/http: get", member: slow, client: v2Client(b, slow, v2Get)},
		{name: "kvorum v3 put", member: kvorum, client: v3Client(b, kvorum, v3Put)},
		{name: "kvorum v3 get", member: kvorum, client: v3Client(b, kvorum, v3Get)},
	}
	for b.Loop() {
		for range benchRounds {
			for _, l := range loads {
				l.run(b)
			}
		}
	}
	for _, l := range loads {
		b.Logf("%-16s %8.0f/s %7.1f µs of the server's processor each", l.name, median(l.rates), median(l.costs))
	}
	b.ReportMetric(median(loads[0].rates)/median(loads[1].rates), "set-rate/etcd")
	b.ReportMetric(median(loads[1].costs)/median(loads[0].costs), "etcd-set-cpu/kvorum")
	b.ReportMetric(median(loads[2].rates)/median(loads[3].rates), "get-rate/etcd")
	b.ReportMetric(median(loads[3].costs)/median(loads[2].costs), "etcd-get-cpu/kvorum")
}

// work is one kind of request to one server, with what its rounds came to.
type work struct {
	name   string
	member *process.Member
	client func() (ask func(n int64) error, err error) // of its own connection

	rates, costs []float64 // requests a second; µs of the server's processor for each
}

// run is one round: many clients, each with one request at a time.
func (l *work) run(b *testing.B) {
	var asks []func(int64) error
	for range benchClients {
		ask, err := l.client()
		if err != nil {
			b.Fatal(err)
		}
		asks = append(asks, ask)
	}
	var next atomic.Int64
	var all sync.WaitGroup
	before, began := cpuSeconds(b, l.member.PID()), time.Now()
	for _, ask := range asks {
		all.Go(func() {
			for time.Since(began) < benchRound {
				if err := ask(next.Add(1) % benchKeys); err != nil {
					b.Errorf("%s: %v", l.name, err)
					return
				}
			}
		})
	}
	all.Wait()
	took, n := time.Since(began).Seconds(), float64(next.Load())
	l.rates = append(l.rates, n/took)
	l.costs = append(l.costs, (cpuSeconds(b, l.member.PID())-before)*1e6/n)
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}

// v2Client makes clients with one connection each, closed with the benchmark.
func v2Client(b *testing.B, m *process.Member, ask func(w *wire, n int64) error) func() (func(int64) error, error) {
	return func() (func(int64) error, error) {
		w, err := dialWire(b.Context(), m.Endpoint())
		if err != nil {
			return nil, err
		}
		b.Cleanup(func() { _ = w.conn.Close() })
		return func(n int64) error { return ask(w, n) }, nil
	}
}

func v2Set(w *wire, n int64) error {
	status, err := w.ask("PUT", "/v2/keys/bench/"+strconv.FormatInt(n, 10), "value="+benchValue)
	if err == nil && (status/100 != 2 || !bytes.HasPrefix(w.body, []byte(`{"action":"set"`))) {
		err = fmt.Errorf("answer %d %s", status, w.body)
	}
	return err
}

func v2Get(w *wire, n int64) error {
	status, err := w.ask("GET", "/v2/keys/bench/"+strconv.FormatInt(n, 10), "")
	if err == nil && (status != 200 || !bytes.Contains(w.body, []byte(benchValue))) {
		err = fmt.Errorf("answer %d %s", status, w.body)
	}
	return err
}

func v3Client(b *testing.B, m *process.Member, ask func(ctx context.Context, c pb.KVClient, n int64) error) func() (func(int64) error, error) {
	const perConn = 8
	var clients atomic.Int64
	var conn *grpc.ClientConn
	return func() (_ func(int64) error, err error) {
		if clients.Add(1)%perConn == 1 {
			if conn, err = grpc.NewClient(m.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
				return nil, err
			}
			toClose := conn
			b.Cleanup(func() { _ = toClose.Close() })
		}
		c := pb.NewKVClient(conn)
		return func(n int64) error { return ask(b.Context(), c, n) }, nil
	}
}

func v3Key(n int64) []byte { return []byte("/bench/" + strconv.FormatInt(n, 10)) }

func v3Put(ctx context.Context, c pb.KVClient, n int64) error {
	_, err := c.Put(ctx, &pb.PutRequest{Key: v3Key(n), Value: []byte(benchValue)})
	return err
}

func v3Get(ctx context.Context, c pb.KVClient, n int64) error {
	r, err := c.Range(ctx, &pb.RangeRequest{Key: v3Key(n)})
	if err == nil && (len(r.Kvs) != 1 || string(r.Kvs[0].Value) != benchValue) {
		err = fmt.Errorf("answer %v", r)
	}
	return err
}

// ticksPerSecond is the unit of /proc on Linux.
const ticksPerSecond = 100

// cpuSeconds is the time that a process has spent on processors.
func cpuSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // not on Linux
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // user and system
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / ticksPerSecond
}
