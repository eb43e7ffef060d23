package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/ctl/bench"
)

// growthName begins the names of the loads that show how cost follows size. They take long and run only when named.
const growthName = "growth"

// growth are the same few loads at each number of keys, and at each number of watchers and connections.
func (s *settings) growth() []load {
	var all []load
	for _, keys := range s.growthKeys {
		all = append(all, s.growthOfKeys(keys)...)
	}
	for _, n := range s.growthClients {
		all = append(all, s.growthOfClients(int(n))...)
	}
	return all
}

// growthOfKeys share one store of so many keys; the first load writes them.
func (s *settings) growthOfKeys(keys int64) []load {
	group := fmt.Sprintf("%s-%d-keys", growthName, keys)
	make := func(name, title string, o bench.Options, size int) load {
		o.KeySpace, o.ValSize = keys, size
		return load{group + "-" + name, fmt.Sprintf("%s; %d keys", title, keys), group, o}
	}
	get := s.options(bench.Range, 100, 8)
	get.Fill = true
	list := s.options(bench.Range, 4, 4)
	list.List, list.Limit, list.Fill = true, 1000, true
	watch := s.options(bench.Watch, 2, 10)
	watch.Streams, watch.Watchers = 10, 1000
	watched := make("watch", "watch: events to 10 streams × 100 watchers", watch, 256)
	watched.KeySpace = 1
	return []load{
		make("get", "get one key, 100 in flight", get, 256),
		make("list", "list 1000 keys, 4 in flight", list, 256),
		make("put", "put, 100 in flight", s.options(bench.Put, 100, 8), 256),
		watched,
	}
}

// growthOfClients has so many connections, which carry a watcher each, or are there beside a load.
func (s *settings) growthOfClients(n int) []load {
	group := fmt.Sprintf("%s-%d-clients", growthName, n)
	watch := s.options(bench.Watch, 2, n)
	watch.KeySpace, watch.Streams, watch.Watchers = 1, n, n
	put := s.options(bench.Put, 100, n)
	put.KeySpace, put.ValSize = 10_000, 256
	return []load{
		{group + "-put", fmt.Sprintf("put, 100 in flight; %d connections", n), group, put},
		{group + "-watch", fmt.Sprintf("watch: events to %d watchers on as many connections", n), group, watch},
	}
}

// sizes reads a comma list of numbers above zero.
func sizes(flag, text string) ([]int64, error) {
	var all []int64
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(strings.TrimSpace(part), 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-%s %s: give numbers above zero such as 1000,10000", flag, text)
		}
		all = append(all, n)
	}
	return all, nil
}
