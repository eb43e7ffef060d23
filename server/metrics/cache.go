package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
)

// cache finds the metric of a label without an allocation or a lock: the map is
// replaced, never changed.
type cache[T any] struct {
	all  atomic.Pointer[map[string]T]
	mu   sync.Mutex
	make func(key string) T
}

func newCache[T any](make func(key string) T) *cache[T] {
	c := &cache[T]{make: make}
	c.all.Store(&map[string]T{})
	return c
}

func (c *cache[T]) get(key string) T {
	if v, ok := (*c.all.Load())[key]; ok {
		return v
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.all.Load()
	if v, ok := old[key]; ok {
		return v
	}
	next := maps.Clone(old)
	next[key] = c.make(key)
	c.all.Store(&next)
	return next[key]
}

func (c *cache[T]) len() int { return len(*c.all.Load()) }
