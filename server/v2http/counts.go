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
	gets, sets, deletes, updates, creates, swaps, compareDeletes tally
	watchers                                                     atomic.Int64
}

func (c *counts) read(err error) { c.gets.add(err) }

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
