package raft

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// inbox is where everyone leaves things for the loop. One lock, one signal: the
// loop takes all there is per turn, however many left something.
type inbox struct {
	wake chan struct{}

	proposalBytesMax int
	messageBytesMax  int

	mu            sync.Mutex
	proposals     []proposal
	proposalBytes int // queued; refused above proposalBytesMax
	messageBytes  int // queued; dropped above messageBytesMax
	next          *readRound
	mail          mail
}

// mail is what the loop takes in one turn.
type mail struct {
	messages []*raftpb.Message
	written  []writeItem
	applied  []Apply
	calls    []func(*core) // run by the loop

	unreachable []MemberID // each once
}

func (m *mail) reset() {
	clear(m.messages)
	clear(m.written)
	clear(m.applied)
	clear(m.calls)
	*m = mail{m.messages[:0], m.written[:0], m.applied[:0], m.calls[:0], m.unreachable[:0]}
}

func (p proposal) bytes() int { return len(p.data) + entryOverheadBytes }

// propose queues a command, or refuses it when the queue is full. A command
// larger than the whole queue is let in when the queue is empty.
func (in *inbox) propose(p proposal) error {
	in.mu.Lock()
	if in.proposalBytes > 0 && in.proposalBytes+p.bytes() > in.proposalBytesMax {
		in.mu.Unlock()
		return ErrTooManyRequests
	}
	in.proposals = append(in.proposals, p)
	in.proposalBytes += p.bytes()
	in.mu.Unlock()
	poke(in.wake)
	return nil
}

// message queues what another member sent, or drops it when the queue is full.
func (in *inbox) message(m *raftpb.Message) error {
	size := messageBytes(m)
	in.mu.Lock()
	if in.messageBytes > 0 && in.messageBytes+size > in.messageBytesMax {
		in.mu.Unlock()
		return ErrQueueFull
	}
	in.mail.messages = append(in.mail.messages, m)
	in.messageBytes += size
	in.mu.Unlock()
	poke(in.wake)
	return nil
}

func messageBytes(m *raftpb.Message) int {
	n := entryOverheadBytes + len(m.GetContext()) + len(m.GetSnapshot().GetData())
	for _, e := range m.GetEntries() {
		n += entryBytes(e)
	}
	return n
}

func (in *inbox) written(items []writeItem) {
	in.mu.Lock()
	in.mail.written = append(in.mail.written, items...)
	in.mu.Unlock()
	poke(in.wake)
}

// applied leaves the applier's answer; unless hurried it waits for the next
// turn that something else causes, at the latest a tick.
func (in *inbox) applied(a Apply, hurry bool) {
	in.mu.Lock()
	in.mail.applied = append(in.mail.applied, a)
	in.mu.Unlock()
	if hurry {
		poke(in.wake)
	}
}

func (in *inbox) call(f func(*core)) {
	in.mu.Lock()
	in.mail.calls = append(in.mail.calls, f)
	in.mu.Unlock()
	poke(in.wake)
}

func (in *inbox) lost(id MemberID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !has(in.mail.unreachable, id) {
		in.mail.unreachable = append(in.mail.unreachable, id)
		poke(in.wake)
	}
}

// joinRead returns the round that will be asked next.
func (in *inbox) joinRead() *readRound {
	in.mu.Lock()
	first := in.next == nil
	if first {
		in.next = newReadRound()
	}
	round := in.next
	round.waiters.Add(1)
	in.mu.Unlock()
	if first {
		poke(in.wake)
	}
	return round
}

// take swaps the mail for an empty one and, if wanted, takes the gathered read
// round.
func (in *inbox) take(empty mail, wantRound bool) (mail, *readRound) {
	in.mu.Lock()
	defer in.mu.Unlock()
	m := in.mail
	in.mail = empty
	in.messageBytes = 0
	if !wantRound || in.next == nil {
		return m, nil
	}
	round := in.next
	in.next = nil
	return m, round
}

// takeProposals swaps the queued proposals for an empty slice. They count as
// queued until returned by putBack.
func (in *inbox) takeProposals(empty []proposal) []proposal {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.proposals) == 0 {
		return empty
	}
	ps := in.proposals
	in.proposals = empty
	return ps
}

// settle ends what takeProposals began: bytes are those no longer queued, and
// left go to the front of the queue.
func (in *inbox) settle(bytes int, left []proposal) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.proposalBytes -= bytes
	if len(left) > 0 {
		in.proposals = append(append([]proposal(nil), left...), in.proposals...)
	}
}
