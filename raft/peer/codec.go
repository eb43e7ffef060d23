package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	messageBytesMax  = 512 << 20 // one message or frame
	snapMessageMax   = 64 << 20  // the MsgSnap before a database
	readStepBytes    = 1 << 20   // how far an announced length is believed at once
	keptBufferMax    = 1 << 20   // a larger buffer is not kept for the next frame
	frameHeartbeat   = 0x00
	frameEntries     = 0x01
	frameMessage     = 0x02
	entriesAhead     = 1024 // how far an announced count of entries is believed
	messageHeartbeat = raftpb.MsgHeartbeat
)

// encoder appends the frames of one stream to a buffer. It belongs to the
// goroutine that writes the stream.
type encoder interface {
	message(buf []byte, m *raftpb.Message) ([]byte, error)
	heartbeat(buf []byte) []byte
}

// decoder reads the frames of one stream. A heartbeat gives nil, nil.
type decoder interface {
	next() (*raftpb.Message, int, error)
}

// messageEncoder writes the frames of the message stream: a length and a
// protobuf message.
type messageEncoder struct{}

func (messageEncoder) message(buf []byte, m *raftpb.Message) ([]byte, error) {
	return appendSized(buf, m)
}

func (messageEncoder) heartbeat(buf []byte) []byte {
	// A Message that has only its type.
	return append(buf, 0, 0, 0, 0, 0, 0, 0, 2, 0x08, byte(messageHeartbeat))
}

// appendSized appends the big-endian length of a message and the message.
func appendSized(buf []byte, m proto.Message) ([]byte, error) {
	at := len(buf)
	buf = append(buf, 0, 0, 0, 0, 0, 0, 0, 0)
	out, err := proto.MarshalOptions{}.MarshalAppend(buf, m)
	if err != nil {
		return buf[:at], fmt.Errorf("encode message: %w", err)
	}
	size := len(out) - at - 8
	if size > messageBytesMax {
		return buf[:at], fmt.Errorf("encode message of %d bytes: %w", size, ErrTooLarge)
	}
	binary.BigEndian.PutUint64(out[at:], uint64(size))
	return out, nil
}

// messageDecoder reads the message stream.
type messageDecoder struct{ r frameReader }

func (d *messageDecoder) next() (*raftpb.Message, int, error) {
	d.r.begin()
	m := &raftpb.Message{}
	if err := d.r.sized(m, messageBytesMax); err != nil {
		return nil, d.r.n, err
	}
	if isLinkHeartbeat(m) {
		return nil, d.r.n, nil
	}
	return m, d.r.n, nil
}

// isLinkHeartbeat tells the heartbeat of a link from one of raft, which has a
// sender.
func isLinkHeartbeat(m *raftpb.Message) bool {
	return m.GetType() == messageHeartbeat && m.GetFrom() == 0 && m.GetTo() == 0
}

// position is the state that both ends of a msgapp stream keep: the term of the
// last message and the index of its last entry.
type position struct{ term, index uint64 }

// after is the position that a whole message leaves.
func after(m *raftpb.Message) position {
	if n := len(m.GetEntries()); n > 0 {
		return position{term: m.GetTerm(), index: m.GetEntries()[n-1].GetIndex()}
	}
	return position{term: m.GetTerm(), index: m.GetIndex()}
}

// continues reports whether m says nothing beyond its entries and its commit
// index to somebody who knows the position.
func (p position) continues(m *raftpb.Message) bool {
	return m.GetIndex() == p.index && m.GetLogTerm() == p.term && m.GetTerm() == p.term
}

// appEncoder writes the frames of the msgapp stream:
//
//	00                                    heartbeat
//	01 count (length entry)* commit       MsgApp that continues the position
//	02 length message                     any other
//
// Numbers are 64 bits, big endian.
type appEncoder struct{ at position }

func (e *appEncoder) heartbeat(buf []byte) []byte { return append(buf, frameHeartbeat) }

func (e *appEncoder) message(buf []byte, m *raftpb.Message) ([]byte, error) {
	start := len(buf)
	if !e.at.continues(m) {
		out, err := appendSized(append(buf, frameMessage), m)
		if err != nil {
			return buf[:start], err
		}
		e.at = after(m)
		return out, nil
	}
	buf = append(buf, frameEntries)
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(m.GetEntries())))
	var err error
	for _, entry := range m.GetEntries() {
		if buf, err = appendSized(buf, entry); err != nil {
			return buf[:start], err
		}
	}
	buf = binary.BigEndian.AppendUint64(buf, m.GetCommit())
	e.at.index += uint64(len(m.GetEntries()))
	return buf, nil
}

// appDecoder reads the msgapp stream that from sends to us.
type appDecoder struct {
	r        frameReader
	at       position
	from, to uint64
}

func (d *appDecoder) next() (*raftpb.Message, int, error) {
	d.r.begin()
	kind, err := d.r.byte()
	if err != nil {
		return nil, d.r.n, err
	}
	switch kind {
	case frameHeartbeat:
		return nil, d.r.n, nil
	case frameEntries:
		m, err := d.entries()
		return m, d.r.n, err
	case frameMessage:
		m := &raftpb.Message{}
		if err := d.r.sized(m, messageBytesMax); err != nil {
			return nil, d.r.n, err
		}
		d.at = after(m)
		return m, d.r.n, nil
	}
	return nil, d.r.n, fmt.Errorf("msgapp frame type %d: %w", kind, ErrMalformed)
}

func (d *appDecoder) entries() (*raftpb.Message, error) {
	count, err := d.r.uint64()
	if err != nil {
		return nil, err
	}
	m := &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: &d.from, To: &d.to,
		Term: proto.Uint64(d.at.term), LogTerm: proto.Uint64(d.at.term), Index: proto.Uint64(d.at.index),
	}
	if count > 0 {
		m.Entries = make([]*raftpb.Entry, 0, min(count, entriesAhead))
	}
	for range count {
		if d.r.n > messageBytesMax {
			return nil, fmt.Errorf("msgapp frame of %d entries: %w", count, ErrTooLarge)
		}
		entry := &raftpb.Entry{}
		if err := d.r.sized(entry, messageBytesMax); err != nil {
			return nil, err
		}
		m.Entries = append(m.Entries, entry)
	}
	commit, err := d.r.uint64()
	if err != nil {
		return nil, err
	}
	m.Commit = proto.Uint64(commit)
	d.at.index += count
	return m, nil
}

// frameReader reads numbers and sized messages and counts the bytes of the
// frame at hand.
type frameReader struct {
	r    io.Reader
	n    int // bytes since begin
	word [8]byte
	buf  []byte // reused; protobuf copies what it keeps
}

func (f *frameReader) begin() { f.n = 0 }

func (f *frameReader) byte() (byte, error) {
	n, err := io.ReadFull(f.r, f.word[:1])
	f.n += n
	return f.word[0], err
}

func (f *frameReader) uint64() (uint64, error) {
	n, err := io.ReadFull(f.r, f.word[:])
	f.n += n
	return binary.BigEndian.Uint64(f.word[:]), noEOF(err, f.n)
}

// sized reads a length and a message of that length.
func (f *frameReader) sized(m proto.Message, bytesMax uint64) error {
	size, err := f.uint64()
	if err != nil {
		return err
	}
	if size > bytesMax {
		return fmt.Errorf("length %d: %w", size, ErrTooLarge)
	}
	if err := f.fill(int(size)); err != nil {
		return fmt.Errorf("read %d bytes: %w", size, err)
	}
	if err := proto.Unmarshal(f.buf, m); err != nil {
		return fmt.Errorf("decode %d bytes: %w: %w", size, ErrMalformed, err)
	}
	if cap(f.buf) > keptBufferMax {
		f.buf = nil
	}
	return nil
}

// fill reads size bytes into buf. The buffer grows with what has arrived, not
// with what was announced.
func (f *frameReader) fill(size int) error {
	f.buf = f.buf[:0]
	for len(f.buf) < size {
		step := min(size-len(f.buf), max(readStepBytes, len(f.buf)))
		at := len(f.buf)
		if cap(f.buf) < at+step {
			grown := make([]byte, at, at+step)
			copy(grown, f.buf)
			f.buf = grown
		}
		f.buf = f.buf[:at+step]
		n, err := io.ReadFull(f.r, f.buf[at:])
		f.n += n
		if err != nil {
			return noEOF(err, f.n)
		}
	}
	return nil
}

// noEOF turns the end of a stream inside a frame into an error of its own.
func noEOF(err error, n int) error {
	if errors.Is(err, io.EOF) && n > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// decodeWhole reads a message that goes on to the end of r.
func decodeWhole(r io.Reader, bytesMax int) (*raftpb.Message, int, error) {
	body, err := io.ReadAll(io.LimitReader(r, int64(bytesMax)+1))
	if err != nil {
		return nil, len(body), fmt.Errorf("read message: %w", err)
	}
	if len(body) > bytesMax {
		return nil, len(body), ErrTooLarge
	}
	m := &raftpb.Message{}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, len(body), fmt.Errorf("decode %d bytes: %w: %w", len(body), ErrMalformed, err)
	}
	return m, len(body), nil
}
