package peer

import "sync/atomic"

// counters of one member; any goroutine adds.
type counters struct {
	sentBytes, receivedBytes                   atomic.Uint64
	sendFailures, receiveFailures              atomic.Uint64
	snapshotsSent, snapshotSendFailures        atomic.Uint64
	snapshotsReceived, snapshotRecvFailures    atomic.Uint64
	snapshotsSendInflight, snapshotsInInflight atomic.Int64
}

// Stats are the counters of one member since it was added.
type Stats struct {
	ID     uint64
	Remote bool // posts only
	Active bool

	Disconnected uint64 // times that it became inactive

	SentBytes       uint64
	ReceivedBytes   uint64
	SendFailures    uint64 // messages lost on our side
	ReceiveFailures uint64 // frames or messages not understood or not taken

	SnapshotsSent            uint64
	SnapshotSendFailures     uint64
	SnapshotsSending         int64
	SnapshotsReceived        uint64
	SnapshotReceiveFailures  uint64
	SnapshotsBeingReceived   int64
	MessageStream, AppStream bool // streams to the member that are attached
}

// Stats returns the counters of all members, by ascending ID.
func (t *Transport) Stats() []Stats {
	ids := t.Members()
	all := make([]Stats, 0, len(ids))
	for _, id := range ids {
		t.mu.Lock()
		p := t.peers[id]
		remote := p != nil && p.kind != kindPeer
		t.mu.Unlock()
		if p != nil {
			s := p.stats()
			s.Remote = remote
			all = append(all, s)
		}
	}
	return all
}

func (p *peer) stats() Stats {
	p.health.mu.Lock()
	active, disconnected := !p.health.activeSince.IsZero(), p.health.disconnected
	p.health.mu.Unlock()
	c := &p.count
	return Stats{
		ID: p.id, Active: active, Disconnected: disconnected,
		SentBytes: c.sentBytes.Load(), ReceivedBytes: c.receivedBytes.Load(),
		SendFailures: c.sendFailures.Load(), ReceiveFailures: c.receiveFailures.Load(),
		SnapshotsSent: c.snapshotsSent.Load(), SnapshotSendFailures: c.snapshotSendFailures.Load(),
		SnapshotsSending:  c.snapshotsSendInflight.Load(),
		SnapshotsReceived: c.snapshotsReceived.Load(), SnapshotReceiveFailures: c.snapshotRecvFailures.Load(),
		SnapshotsBeingReceived: c.snapshotsInInflight.Load(),
		MessageStream:          p.out[streamMessage].isOpen(), AppStream: p.out[streamMsgApp].isOpen(),
	}
}
