package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/raft/wal"
	"github.com/kvorum/kvorum/server/state"
)

// network holds what was sent and has not arrived.
type network struct {
	sim *Sim
	out []envelope
	cut map[[2]raft.MemberID]bool // from, to: the link is down

	late float64 // share of messages that others overtake
	idle float64 // chance that nothing arrives
}

// envelope is a message as bytes on a wire.
type envelope struct {
	from, to raft.MemberID
	data     []byte
	body     []byte // a database, with a snapshot
	sender   *run   // who hears how sending the snapshot went
}

// send puts messages on the wire to those that the sender has links to.
func (n *network) send(m *member, messages []*raft.Message) {
	for _, msg := range messages {
		switch msg.GetType() {
		case raftpb.MsgVote, raftpb.MsgVoteResp:
			m.voted = true
			if msg.GetTerm() > m.disk.syncedTerm && !msg.GetReject() {
				m.wrong = fmt.Errorf("a vote, or the question for one, of term %d is sent; the log is synced in term %d", msg.GetTerm(), m.disk.syncedTerm)
			}
		}
		if to := raft.MemberID(msg.GetTo()); m.links[to] {
			n.post(m, msg, nil)
		}
	}
}

func (n *network) post(m *member, msg *raft.Message, body []byte) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		panic(err)
	}
	e := envelope{from: m.id, to: raft.MemberID(msg.GetTo()), data: data, body: body}
	if body != nil {
		e.sender = m.run
	}
	n.out = append(n.out, e)
	if len(n.out) > inFlightMax { // somewhere a queue is full
		n.drop(n.sim.rng.IntN(len(n.out)))
	}
}

// inFlightMax is how many messages may be under way.
const inFlightMax = 300

// drop loses a message; the sender of a snapshot does not wait for it.
func (n *network) drop(i int) {
	e := n.out[i]
	n.out = slices.Delete(n.out, i, i+1)
	if from := n.sim.members[e.from-1]; e.sender != nil && from.run == e.sender {
		from.node.ReportSnapshot(e.to, false)
	}
}

// deliver takes any message from the wire: late, twice, or never.
func (n *network) deliver() error {
	s := n.sim
	if len(n.out) == 0 || s.chance(n.idle) {
		return nil
	}
	i := 0
	if s.chance(n.late) {
		if i = s.rng.IntN(len(n.out)); i > 0 {
			s.counts.Overtaken++
		}
	}
	e := n.out[i]
	if s.calm || !s.chance(s.swarm.repeat) { // else it comes again
		n.out = slices.Delete(n.out, i, i+1)
	} else {
		s.counts.Repeated++
	}
	to := s.members[e.to-1]
	lost := to.run == nil
	if !lost && !s.calm && (n.cut[[2]raft.MemberID{e.from, e.to}] || s.chance(s.swarm.loss)) {
		lost = true
		s.counts.Lost++
	}
	if !lost && to.machine.IsRemoved(state.MemberID(e.from)) {
		lost = true
		n.tellRemoved(e)
	}
	if err := n.arrive(e, to, lost); err != nil {
		return fmt.Errorf("member %d: message from %d: %w", e.to, e.from, err)
	}
	if e.sender != nil {
		return n.report(e, !lost)
	}
	return nil
}

func (n *network) arrive(e envelope, to *member, lost bool) error {
	if lost {
		return nil
	}
	n.sim.note(uint64(e.from), uint64(e.to), uint64(len(e.data)))
	n.sim.trace.Write(e.data)
	msg := new(raft.Message)
	if err := proto.Unmarshal(e.data, msg); err != nil {
		return err
	}
	if e.body != nil {
		if err := to.keepBody(uint64(raft.Described(msg).Index), e.body); err != nil {
			return err
		}
	}
	to.received = to.received || e.body != nil
	to.links[e.from] = true // as the transport learns from the stream's headers
	to.node.Step(msg)
	return to.act()
}

// report tells the sender how a snapshot went, if it still runs.
func (n *network) report(e envelope, ok bool) error {
	from := n.sim.members[e.from-1]
	if from.run == nil || from.run != e.sender {
		return nil
	}
	from.node.ReportSnapshot(e.to, ok)
	return from.act()
}

// tellRemoved is the answer 410: the sender learns that it is out.
func (n *network) tellRemoved(e envelope) {
	from := n.sim.members[e.from-1]
	if from.run != nil && !n.cut[[2]raft.MemberID{e.to, e.from}] {
		from.stopRemoved()
	}
}

// keepBody makes a received database durable before its message is handed on.
func (m *member) keepBody(index uint64, body []byte) error {
	name := filepath.Join(m.dir, wal.SnapDBName(index))
	tmp := filepath.Join(m.dir, "tmp-received")
	return errors.Join(os.WriteFile(tmp, body, 0o600), os.Rename(tmp, name))
}

// Send implements raft.Transport.
func (m *member) Send(messages []*raft.Message) { m.sim.net.send(m, messages) }

// SendSnapshot implements raft.SnapshotSender: the body is taken later.
func (m *member) SendSnapshot(msg *raft.Message) { m.sends = append(m.sends, msg) }
