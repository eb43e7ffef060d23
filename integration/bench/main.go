// Command bench measures Kvorum beside etcd: the same loads, on the same machine, in alternating rounds.
//
// It starts each system as processes of its own on fresh data directories, with one and with three members, and prints
// as Markdown what the clients saw (throughput, p50, p99) and what the servers paid for it (CPU, memory, fsyncs, bytes
// written), with the ratio etcd ÷ Kvorum for each. CPU, fsyncs and bytes are sums over all members, background work up
// to a moment after the load included; fsyncs are write-ahead log syncs and backend commits as /metrics counts them.
//
//	go run ./integration/bench                      everything; about half an hour
//	go run ./integration/bench -loads put -nodes 1  some of it
//	go run ./integration/bench -loads calm          the longest gaps that clients see while something big goes on
//	go run ./integration/bench -loads growth        how cost follows the number of keys, watchers and connections
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	kvorum, etcd, debian string
	dir, out             string
	loads                string
	nodes                []int
	rounds               int
	duration, settle     time.Duration
	keys, bigKeys        int64
	alone                bool
	leases, leaseTTL     int64
	expireRounds         int

	calmKeys, calmBehind, calmMiB int64
	growthKeys, growthClients     []int64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) == 3 && os.Args[1] == probeArg {
		err = probeMain(ctx, os.Args[2], os.Stdin, os.Stdout)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&s.kvorum, "kvorum-bin", filepath.Join("bin", "kvorum"), "the server that is measured")
	f.StringVar(&s.etcd, "etcd-bin", "", "etcd 3.7; built from integration/compat/cmd/etcdserver when empty")
	f.StringVar(&s.debian, "etcd34-bin", "/usr/bin/etcd", "etcd 3.4; left out when it does not exist, or when empty")
	f.BoolVar(&s.alone, "alone", false, "measure Kvorum without any etcd beside it")
	f.StringVar(&s.dir, "dir", "", "where data directories go, on the disk to be measured; a temporary one when empty")
	f.StringVar(&s.out, "out", "", "also write the tables to this file")
	f.StringVar(&s.loads, "loads", "", "comma list of loads, or of beginnings of their names (name$ means that one alone); all when empty")
	nodes := f.String("nodes", "1,3", "cluster sizes")
	f.IntVar(&s.rounds, "rounds", 5, "rounds of each load per system; medians are printed")
	f.DurationVar(&s.duration, "duration", 3*time.Second, "of one round")
	f.DurationVar(&s.settle, "settle", 500*time.Millisecond, "what servers get after a load for work that they have put off, which is charged to the load")
	f.Int64Var(&s.keys, "keys", 100_000, "keys in the store for the reads")
	f.Int64Var(&s.bigKeys, "big-keys", 1_000_000, "keys in the store for the restart and for the list in a big store")
	f.Int64Var(&s.leases, "leases", 100_000, "leases that end at once")
	f.Int64Var(&s.leaseTTL, "lease-ttl", 30, "their seconds to live; more than granting them takes")
	f.IntVar(&s.expireRounds, "expire-rounds", 1, "rounds of that; each takes a minute and more")
	f.Int64Var(&s.calmKeys, "calm-keys", 1_000_000, "calm: keys of 256 bytes in the store")
	f.Int64Var(&s.calmBehind, "calm-behind", 500_000, "calm: revisions that the watcher is behind")
	f.Int64Var(&s.calmMiB, "calm-mib", 1024, "calm: size of the database that is defragmented")
	growthKeys := f.String("growth-keys", "10000,100000,1000000,5000000", "growth: numbers of keys")
	growthClients := f.String("growth-clients", "10,1000,10000", "growth: numbers of watchers and connections")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	for _, text := range strings.Split(*nodes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-nodes %s: give sizes such as 1,3", *nodes)
		}
		s.nodes = append(s.nodes, n)
	}
	if s.rounds < 1 || s.duration <= 0 || s.settle < clockTick || s.keys < 1 || s.bigKeys < 1 || s.leases < 1 || s.leaseTTL < 1 || s.expireRounds < 1 {
		return nil, errors.New("-settle must be 10 ms at least, -rounds, -duration, -keys, -big-keys, -leases, -lease-ttl and -expire-rounds must be above zero")
	}
	if s.calmKeys < 5 || s.calmBehind < 1 || s.calmMiB < 1 {
		return nil, errors.New("-calm-keys must be 5 at least, -calm-behind and -calm-mib above zero")
	}
	var err error
	if s.growthKeys, err = sizes("growth-keys", *growthKeys); err != nil {
		return nil, err
	}
	s.growthClients, err = sizes("growth-clients", *growthClients)
	return s, err
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.dir, "kvorum-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if s.out != "" {
		file, err := os.Create(s.out)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // writes are checked as they are made
		out = io.MultiWriter(out, file)
	}
	binaries, err := s.binaries(ctx, dir)
	if err != nil {
		return err
	}
	b := &benchmark{settings: s, dir: dir, binaries: binaries, out: out, args: args, counts: canCount(ctx)}
	return b.run(ctx)
}

// binary is one system to be measured.
type binary struct {
	name, path string
}

// binaries finds or builds the systems; the one that is measured comes first.
func (s *settings) binaries(ctx context.Context, dir string) ([]binary, error) {
	if _, err := os.Stat(s.kvorum); err != nil {
		return nil, fmt.Errorf("%w; run `make build` first, or give -kvorum-bin", err)
	}
	if s.alone {
		return []binary{{"Kvorum", s.kvorum}}, nil
	}
	if s.etcd == "" {
		s.etcd = filepath.Join(dir, "etcdserver")
		build := exec.CommandContext(ctx, "go", "build", "-o", s.etcd, "./cmd/etcdserver") //nolint:gosec // our own arguments
		build.Dir = filepath.Join("integration", "compat")
		if text, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build etcd 3.7 (run from the repository's root, or give -etcd-bin): %w\n%s", err, text)
		}
	}
	all := []binary{{"Kvorum", s.kvorum}, {"etcd 3.7", s.etcd}}
	if _, err := os.Stat(s.debian); s.debian != "" && err == nil {
		all = append(all, binary{"etcd 3.4", s.debian})
	}
	return all, nil
}
