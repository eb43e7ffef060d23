package v2keys

import (
	"encoding/binary"
	"fmt"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// Action is what a request or an event does.
type Action uint8

// The actions. The numbers are stored.
const (
	ActionGet Action = iota
	ActionSet
	ActionCreate
	ActionUpdate
	ActionCompareAndSwap
	ActionDelete
	ActionCompareAndDelete
	ActionExpire
)

// String is the name of the action in answers.
func (a Action) String() string {
	switch a {
	case ActionGet:
		return "get"
	case ActionSet:
		return "set"
	case ActionCreate:
		return "create"
	case ActionUpdate:
		return "update"
	case ActionCompareAndSwap:
		return "compareAndSwap"
	case ActionDelete:
		return "delete"
	case ActionCompareAndDelete:
		return "compareAndDelete"
	case ActionExpire:
		return "expire"
	}
	return fmt.Sprintf("action %d", uint8(a))
}

// Removes reports whether the action takes nodes away.
func (a Action) Removes() bool { return a >= ActionDelete && a <= ActionExpire }

// Node is a file or a directory.
type Node struct {
	Path  string
	Value []byte // of a file; must not be written
	Dir   bool
	// Created and Modified are 0 for the root.
	Created, Modified mvcc.Revision
	// Expiration is in nanoseconds since 1970; 0: never.
	Expiration int64
	// Nodes are what a listed directory holds, in order.
	Nodes []*Node

	lease mvcc.LeaseID
}

const (
	flagDir      = 1 << iota
	flagExpires  // expiration follows
	flagSilent   // watchers are not told
	flagAside    // not the head of its revision: a directory made for a node below it
	flagModified // modified index follows
	flagsKnown   = 1<<iota - 1
)

// stored is a node with what else its value in the store says.
type stored struct {
	Node
	action Action
	flags  byte
}

// encode is the node's value in the store. Invariant: equal nodes have equal
// bytes on every member.
func (s *stored) encode() []byte {
	const head = 2 + 3*binary.MaxVarintLen64
	b := make([]byte, 0, head+len(s.Value))
	b = append(b, byte(s.action), s.flags)
	b = binary.AppendUvarint(b, uint64(s.Created))
	if s.flags&flagModified != 0 {
		b = binary.AppendUvarint(b, uint64(s.Modified))
	}
	if s.flags&flagExpires != 0 {
		b = binary.AppendVarint(b, s.Expiration)
	}
	return append(b, s.Value...)
}

// decode reads the record of a node. Its value aliases the record. The error is
// ErrDamaged.
func decode(kv *mvccpb.KeyValue) (*stored, error) {
	b := kv.Value
	if len(b) < 2 || len(kv.Key) <= len(Prefix) || kv.Key[len(Prefix)] != '/' {
		return nil, fmt.Errorf("%w: %q", ErrDamaged, kv.Key)
	}
	s := &stored{action: Action(b[0]), flags: b[1]}
	if s.action < ActionSet || s.action > ActionCompareAndSwap || s.flags&^flagsKnown != 0 {
		return nil, fmt.Errorf("%w: %q", ErrDamaged, kv.Key)
	}
	b = b[2:]
	created, n := binary.Uvarint(b)
	ok := n > 0
	b = b[max(0, n):]
	modified := uint64(kv.ModRevision)
	if s.flags&flagModified != 0 {
		modified, n = binary.Uvarint(b)
		ok = ok && n > 0
		b = b[max(0, n):]
	}
	if s.flags&flagExpires != 0 {
		s.Expiration, n = binary.Varint(b)
		ok = ok && n > 0
		b = b[max(0, n):]
	}
	if !ok || s.flags&flagDir != 0 && len(b) > 0 {
		return nil, fmt.Errorf("%w: %q", ErrDamaged, kv.Key)
	}
	s.Path, s.Value, s.Dir = string(kv.Key[len(Prefix):]), b, s.flags&flagDir != 0
	s.Created, s.Modified, s.lease = mvcc.Revision(created), mvcc.Revision(modified), mvcc.LeaseID(kv.Lease)
	return s, nil
}
