package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/ctl/bench"
)

// load is one row of the tables.
type load struct {
	name  string // for -loads
	title string
	group string // loads of one group run on one cluster, in this order
	bench.Options
}

// loads are all but those that are measured in ways of their own: see benchmark.others.
func (s *settings) all() []load {
	put := func(name, title string, clients, conns, size int) load {
		o := s.options(bench.Put, clients, conns)
		o.ValSize, o.KeySpace = size, s.keys
		return load{name, title, "write", o}
	}
	read := func(name, title string, clients int, edit func(*bench.Options)) load {
		o := s.options(bench.Range, clients, min(clients, 8))
		o.KeySpace, o.ValSize, o.Fill = s.keys, 256, true
		edit(&o)
		return load{name, title, "read", o}
	}
	watch := func(name, title string, streams, watchers, conns int) load {
		o := s.options(bench.Watch, 2, conns)
		o.KeySpace, o.Streams, o.Watchers = 1, streams, watchers
		return load{name, title, "watch", o}
	}
	txn := s.options(bench.Txn, 100, 8)
	txn.KeySpace = s.keys
	lease := s.options(bench.LeaseKeepAlive, 100, 8)
	lease.Leases = 1000
	inBig := read("list-big", fmt.Sprintf("list 1000 of %d keys, 4 in flight", s.bigKeys), 4, func(o *bench.Options) { o.List, o.Limit = true, 1000 })
	inBig.group, inBig.KeySpace = "read in a big store", s.bigKeys
	return append([]load{
		put("put-1", "put, 1 in flight", 1, 1, 256),
		put("put-100", "put, 100 in flight", 100, 8, 256),
		put("put-1000", "put, 1000 in flight", 1000, 20, 256),
		put("put-8k", "put of 8 KiB, 100 in flight", 100, 8, 8192),
		{"txn", "txn: compare, put, get; 100 in flight", "write", txn},
		read("range", "get one key, linearizable, 100 in flight", 100, func(*bench.Options) {}),
		read("range-serializable", "get one key, serializable, 100 in flight", 100, func(o *bench.Options) { o.Serializable = true }),
		read("list", "list 1000 keys, 4 in flight", 4, func(o *bench.Options) { o.List, o.Limit = true, 1000 }),
		read("list-10000", "list 10000 keys, 4 in flight", 4, func(o *bench.Options) { o.List, o.Limit = true, 10_000 }),
		read("count", "count all keys, 4 in flight", 4, func(o *bench.Options) { o.List, o.CountOnly = true, true }),
		read("keys-only", "list 1000 keys without values, 4 in flight", 4, func(o *bench.Options) {
			o.List, o.Limit, o.KeysOnly = true, 1000, true
		}),
		inBig,
		watch("watch-10x100", "watch: events to 10 streams × 100 watchers", 10, 1000, 10),
		watch("watch-1000x1", "watch: events to 1000 streams × 1 watcher", 1000, 1000, 20),
		{"lease", "lease keep-alive, 100 in flight", "lease", lease},
	}, s.growth()...)
}

func (s *settings) options(kind bench.Kind, clients, conns int) bench.Options {
	o := bench.Defaults(kind)
	o.Clients, o.Conns, o.Total, o.Duration, o.Fill = clients, conns, 0, s.duration, false
	return o
}

// restartName is what -loads calls the restart.
const restartName = "restart"

// wanted tells whether -loads names this one. What takes long must be named.
func (s *settings) wanted(name string) bool {
	if s.loads == "" {
		return name != calmName && !strings.HasPrefix(name, growthName)
	}
	return slices.ContainsFunc(strings.Split(s.loads, ","), func(want string) bool {
		whole, exact := strings.CutSuffix(want, "$")
		return name == whole || !exact && strings.HasPrefix(name, want)
	})
}
