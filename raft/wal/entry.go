package wal

import (
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	tagVarint1 = 1<<3 | byte(protowire.VarintType)
	tagVarint2 = 2<<3 | byte(protowire.VarintType)
	tagVarint3 = 3<<3 | byte(protowire.VarintType)
	tagBytes3  = 3<<3 | byte(protowire.BytesType)
	tagBytes4  = 4<<3 | byte(protowire.BytesType)
)

// appendEntryHead encodes all of e but the payload bytes, which follow it. It is
// written by hand because this is the path of every write: raftpb's own
// encoding goes through reflection and a second buffer. The type is left out
// when Normal, as etcd 3.7 does.
func appendEntryHead(buf []byte, e *raftpb.Entry) []byte {
	if t := e.GetType(); t != raftpb.EntryNormal {
		buf = append(buf, tagVarint1)
		buf = protowire.AppendVarint(buf, uint64(t))
	}
	buf = append(buf, tagVarint2)
	buf = protowire.AppendVarint(buf, e.GetTerm())
	buf = append(buf, tagVarint3)
	buf = protowire.AppendVarint(buf, e.GetIndex())
	if e.Data != nil {
		buf = append(buf, tagBytes4)
		buf = protowire.AppendVarint(buf, uint64(len(e.Data)))
	}
	return buf
}

// appendEntryRecord frames one entry, whose encoded head is given, and returns
// the new running checksum.
func appendEntryRecord(buf []byte, crc uint32, head []byte, e *raftpb.Entry) ([]byte, uint32) {
	crc = crc32.Update(crc, castagnoli(), head)
	crc = crc32.Update(crc, castagnoli(), e.Data)
	return appendRecord(buf, kindEntry, crc, head, e.Data), crc
}

// entryRoom holds an entry and what its fields point to, in one allocation.
type entryRoom struct {
	entry raftpb.Entry
	term  uint64
	index uint64
	kind  raftpb.EntryType
}

// decodeEntry parses an entry and copies its payload. Explicit zeros, as etcd
// 3.5 and 3.6 write them, and absent fields mean the same.
func decodeEntry(b []byte) (*raftpb.Entry, error) {
	room := new(entryRoom)
	e := &room.entry
	e.Term, e.Index = &room.term, &room.index
	err := eachField(b, func(num protowire.Number, v uint64, data []byte) {
		switch num {
		case 1:
			room.kind = raftpb.EntryType(v)
		case 2:
			room.term = v
		case 3:
			room.index = v
		case 4:
			e.Data = append(make([]byte, 0, len(data)), data...)
		}
	}, 4)
	if err != nil {
		return nil, fmt.Errorf("decode entry: %w", err)
	}
	if room.kind != raftpb.EntryNormal {
		e.Type = &room.kind
	}
	return e, nil
}

// appendState encodes a hard state, zeros explicit.
func appendState(buf []byte, hs *raftpb.HardState) []byte {
	buf = append(buf, tagVarint1)
	buf = protowire.AppendVarint(buf, hs.GetTerm())
	buf = append(buf, tagVarint2)
	buf = protowire.AppendVarint(buf, hs.GetVote())
	buf = append(buf, tagVarint3)
	return protowire.AppendVarint(buf, hs.GetCommit())
}

// decodeState parses a hard state; all three fields of the result are set.
func decodeState(b []byte) (*raftpb.HardState, error) {
	var f [3]uint64
	err := eachField(b, func(num protowire.Number, v uint64, _ []byte) {
		f[num-1] = v
	}, 0)
	if err != nil {
		return nil, fmt.Errorf("decode hard state: %w", err)
	}
	return newState(f[0], f[1], f[2]), nil
}

func newState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// Snapshot is the log's mark that a snapshot exists: the entry it reflects and
// the membership there. ConfState is nil only at index 0 and in logs of etcd
// 3.4 and older.
type Snapshot struct {
	Index     uint64
	Term      uint64
	ConfState *raftpb.ConfState
}

// appendSnapshot encodes a snapshot record's data; index and term explicit.
func appendSnapshot(buf []byte, s Snapshot) ([]byte, error) {
	buf = append(buf, tagVarint1)
	buf = protowire.AppendVarint(buf, s.Index)
	buf = append(buf, tagVarint2)
	buf = protowire.AppendVarint(buf, s.Term)
	if s.ConfState == nil {
		return buf, nil
	}
	conf, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.ConfState)
	if err != nil {
		return nil, fmt.Errorf("encode membership: %w", err)
	}
	buf = append(buf, tagBytes3)
	return protowire.AppendBytes(buf, conf), nil
}

func decodeSnapshot(b []byte) (Snapshot, error) {
	var s Snapshot
	var conf []byte
	err := eachField(b, func(num protowire.Number, v uint64, data []byte) {
		switch num {
		case 1:
			s.Index = v
		case 2:
			s.Term = v
		case 3:
			conf = data
		}
	}, 3)
	if err != nil {
		return Snapshot{}, fmt.Errorf("decode snapshot record: %w", err)
	}
	if conf != nil {
		s.ConfState = new(raftpb.ConfState)
		if err := proto.Unmarshal(conf, s.ConfState); err != nil {
			return Snapshot{}, fmt.Errorf("decode membership of snapshot %d: %w", s.Index, err)
		}
	}
	return s, nil
}

// eachField calls visit for the fields of a flat message whose fields are
// varints, except bytesField. Fields of another wire type are an error when
// their number is known, and skipped otherwise.
func eachField(b []byte, visit func(num protowire.Number, v uint64, data []byte), bytesField protowire.Number) error {
	last := max(3, bytesField)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v uint64
		var data []byte
		want := protowire.VarintType
		if num == bytesField {
			want = protowire.BytesType
		}
		switch {
		case num > last:
			n = protowire.ConsumeFieldValue(num, typ, b)
		case typ != want:
			return fmt.Errorf("field %d has wire type %d", num, typ)
		case typ == protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			v, n = protowire.ConsumeVarint(b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if num <= last {
			visit(num, v, data)
		}
		b = b[n:]
	}
	return nil
}
