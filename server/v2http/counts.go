package v2http

import (
	"sync/atomic"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// tally counts what went well and what did not.
type tally struct{ success, fail atomic.Uint64 }

func (t *tally) add(err error) {
	if err != nil {
		t.fail.Add(1)
		return
	}
	t.success.Add(1)
}

// counts are the requests of this member's clients since it started.
type counts struct {
	gets, lists, sets, deletes, updates, creates, swaps, compareDeletes tally
	watches                                                             atomic.Uint64 // since the start
	watchers                                                            atomic.Int64  // that are open
}

func (c *counts) read(recursive bool, err error) {
	if recursive {
		c.lists.add(err)
		return
	}
	c.gets.add(err)
}

func (c *counts) changed(m pb.V2Request_Method, err error) {
	switch m {
	case pb.V2Request_SET:
		c.sets.add(err)
	case pb.V2Request_CREATE, pb.V2Request_CREATE_IN_ORDER:
		c.creates.add(err)
	case pb.V2Request_UPDATE:
		c.updates.add(err)
	case pb.V2Request_COMPARE_AND_SWAP:
		c.swaps.add(err)
	case pb.V2Request_DELETE:
		c.deletes.add(err)
	case pb.V2Request_COMPARE_AND_DELETE:
		c.compareDeletes.add(err)
	}
}

// ActionCount is how many requests there were for an action.
type ActionCount struct {
	Action      string // as in the metrics of etcd
	All, Failed uint64
}

func (t *tally) of(action string) ActionCount {
	failed := t.fail.Load()
	return ActionCount{Action: action, All: failed + t.success.Load(), Failed: failed}
}

// Reads counts the requests that read.
func (h *Handler) Reads() []ActionCount {
	return []ActionCount{h.count.gets.of("get"), h.count.lists.of("getRecursive")}
}

// Writes counts the requests that write.
func (h *Handler) Writes() []ActionCount {
	c := &h.count
	return []ActionCount{
		c.sets.of("set"), c.creates.of("create"), c.updates.of("update"), c.swaps.of("compareAndSwap"),
		c.deletes.of("delete"), c.compareDeletes.of("compareAndDelete"),
	}
}

// WatchCount is how many requests waited for a change.
type WatchCount struct{ All, Open uint64 }

// Watches counts the requests that wait for a change.
func (h *Handler) Watches() WatchCount {
	return WatchCount{All: h.count.watches.Load(), Open: uint64(max(0, h.count.watchers.Load()))}
}

// Expired counts the nodes that were removed when their time was up.
func (h *Handler) Expired() uint64 { return h.machine.V2Expired() }
