package peer

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

func unhex(t *testing.T, parts ...string) []byte {
	t.Helper()
	var all []byte
	for _, p := range parts {
		b, err := hex.DecodeString(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// A changed byte here means that an etcd member no longer understands us.
func TestGoldenFrames(t *testing.T) {
	var app appEncoder
	steps := []struct {
		name string
		enc  encoder
		msg  *raftpb.Message // nil: heartbeat
		want []byte
	}{
		{"message heartbeat", messageEncoder{}, nil, unhex(t, "0000000000000002", "0808")},
		{"message", messageEncoder{}, heartbeatTo(2, 1, 7), unhex(t, "000000000000000a", "0808", "1001", "1802", "2003", "4007")},
		{"app heartbeat", &app, nil, unhex(t, "00")},
		{"app, first: whole message", &app, appTo(1, 2, 5, 10, 1, 1),
			unhex(t, "02", "0000000000000017", "0803", "1002", "1801", "2005", "2805", "300a", "3a07"+"1005"+"180b"+"220100", "400a")},
		{"app, goes on", &app, appTo(1, 2, 5, 11, 2, 1), unhex(t, "01", "0000000000000002",
			"0000000000000007", "1005"+"180c"+"220100", "0000000000000007", "1005"+"180d"+"220101", "000000000000000b")},
		{"app, goes on, empty", &app, appTo(1, 2, 5, 13, 0, 0), unhex(t, "01", "0000000000000000", "000000000000000d")},
		{"app, jump: whole message", &app, appTo(1, 2, 5, 12, 0, 0),
			unhex(t, "02", "000000000000000e", "0803", "1002", "1801", "2005", "2805", "300c", "400c")},
		{"app, new term: whole message", &app, appTo(1, 2, 6, 12, 0, 0),
			unhex(t, "02", "000000000000000e", "0803", "1002", "1801", "2006", "2806", "300c", "400c")},
	}
	for _, s := range steps {
		var got []byte
		if s.msg == nil {
			got = s.enc.heartbeat(nil)
		} else {
			var err error
			if got, err = s.enc.message(nil, s.msg); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
		}
		if !bytes.Equal(got, s.want) {
			t.Errorf("%s:\ngot  %x\nwant %x", s.name, got, s.want)
		}
	}
}

// A message that differs after the trip corrupts a follower's log.
func TestStreamsCarryAnyMessages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d; replay: set seed in TestStreamsCarryAnyMessages", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for _, kind := range []streamKind{streamMessage, streamMsgApp} {
		var buf []byte
		var sent []*raftpb.Message
		enc := kind.encoder()
		term, index := uint64(0), uint64(0)
		for range 2000 {
			switch rnd.IntN(8) {
			case 0:
				buf = enc.heartbeat(buf)
				continue
			case 1:
				term += rnd.Uint64N(3)
			case 2:
				index = rnd.Uint64N(1000)
			}
			m := appTo(1, 2, term, index, rnd.IntN(4), rnd.IntN(100))
			if rnd.IntN(10) == 0 {
				m.LogTerm = proto.Uint64(term / 2)
			}
			index += uint64(len(m.Entries))
			var err error
			if buf, err = enc.message(buf, m); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, m)
		}
		dec := kind.decoder(bytes.NewReader(buf), 1, 2)
		total := 0
		for _, want := range sent {
			got, n, err := dec.next()
			for total += n; got == nil && err == nil; total += n {
				got, n, err = dec.next()
			}
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, want)
		}
		for err := error(nil); !errors.Is(err, io.EOF); {
			var n int
			_, n, err = dec.next()
			total += n
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		if total != len(buf) {
			t.Errorf("%s: %d bytes counted of %d", kind, total, len(buf))
		}
	}
}

// A stranger who announces 500 MB and sends nothing must not cost 500 MB.
func TestAnnouncedLengthsAreNotBelieved(t *testing.T) {
	huge := binary.BigEndian.AppendUint64(nil, 500<<20)
	over := binary.BigEndian.AppendUint64(nil, 1<<63)
	cases := []struct {
		name  string
		input []byte
		dec   func(io.Reader) error
		want  error
	}{
		{"message", huge, stepOf(streamMessage), io.ErrUnexpectedEOF},
		{"message, over the limit", over, stepOf(streamMessage), ErrTooLarge},
		{"app message", append([]byte{2}, huge...), stepOf(streamMsgApp), io.ErrUnexpectedEOF},
		{"app entries", append([]byte{1}, over...), stepOf(streamMsgApp), io.ErrUnexpectedEOF},
		{"app entry", append(append([]byte{1}, 0, 0, 0, 0, 0, 0, 0, 1), huge...), stepOf(streamMsgApp), io.ErrUnexpectedEOF},
		{"app unknown frame", []byte{3}, stepOf(streamMsgApp), ErrMalformed},
		{"snapshot", binary.BigEndian.AppendUint64(nil, 60<<20), snapStep, io.ErrUnexpectedEOF},
		{"snapshot, over the limit", huge, snapStep, ErrTooLarge},
	}
	for _, c := range cases {
		var before, afterwards runtime.MemStats
		runtime.ReadMemStats(&before)
		err := c.dec(bytes.NewReader(c.input))
		runtime.ReadMemStats(&afterwards)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if n := afterwards.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("%s: allocated %d bytes", c.name, n)
		}
	}
}

func stepOf(kind streamKind) func(io.Reader) error {
	return func(r io.Reader) error {
		_, _, err := kind.decoder(r, 1, 2).next()
		return err
	}
}

func snapStep(r io.Reader) error {
	_, _, err := decodeSnapshotHead(r)
	return err
}

// A large message that arrives in small pieces must still arrive.
func TestLargeMessageIsReadAsItArrives(t *testing.T) {
	want := appTo(1, 2, 3, 4, 3, 3<<20)
	buf, err := messageEncoder{}.message(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	got, n, err := streamMessage.decoder(iotestHalf{bytes.NewReader(buf)}, 1, 2).next()
	if err != nil || n != len(buf) {
		t.Fatal(n, err)
	}
	same(t, got, want)
}

// iotestHalf gives at most half of what is asked for.
type iotestHalf struct{ io.Reader }

func (h iotestHalf) Read(p []byte) (int, error) { return h.Reader.Read(p[:(len(p)+1)/2]) }

// A malformed stream must end in an error, never in a panic.
func FuzzStreams(f *testing.F) {
	var buf []byte
	app := &appEncoder{}
	for i := range uint64(4) {
		buf, _ = app.message(buf, appTo(1, 2, 5, 10+i, 1, 4))
		buf = app.heartbeat(buf)
	}
	f.Add(buf)
	buf, _ = messageEncoder{}.message(nil, heartbeatTo(1, 2, 3))
	f.Add(messageEncoder{}.heartbeat(buf))
	f.Add([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, kind := range []streamKind{streamMessage, streamMsgApp} {
			dec, total := kind.decoder(bytes.NewReader(in), 1, 2), 0
			for {
				m, n, err := dec.next()
				total += n
				if err != nil {
					break
				}
				if n == 0 {
					t.Fatal("a frame of no bytes")
				}
				if m != nil && kind == streamMsgApp && !replays(m) {
					t.Fatalf("cannot be encoded again: %v", m)
				}
			}
			if total > len(in) {
				t.Fatalf("%d bytes read of %d", total, len(in))
			}
		}
		if m, _, err := decodeSnapshotHead(bytes.NewReader(in)); err == nil && snapshotIndex(m) == 0 {
			t.Fatal("a snapshot without index was taken")
		}
	})
}

// replays reports whether a decoded message survives another trip.
func replays(m *raftpb.Message) bool {
	buf, err := (&appEncoder{}).message(nil, m)
	if err != nil {
		return false
	}
	again, _, err := streamMsgApp.decoder(bytes.NewReader(buf), m.GetFrom(), m.GetTo()).next()
	if err != nil {
		return false
	}
	// At position (0, 0) a frame may drop fields that a MsgApp does not have.
	return again.GetTerm() == m.GetTerm() && again.GetIndex() == m.GetIndex() && len(again.GetEntries()) == len(m.GetEntries())
}

func BenchmarkAppEncode(b *testing.B) {
	m := appTo(1, 2, 5, 10, 16, 256)
	enc := &appEncoder{}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		enc.at = position{term: 5, index: 10}
		buf, _ = enc.message(buf[:0], m)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkAppDecode(b *testing.B) {
	enc := &appEncoder{at: position{term: 5, index: 10}}
	buf, _ := enc.message(nil, appTo(1, 2, 5, 10, 16, 256))
	src := bytes.NewReader(nil)
	dec := &appDecoder{r: frameReader{r: src}, from: 1, to: 2}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(buf)
		if _, _, err := dec.next(); err != nil {
			b.Fatal(err)
		}
	}
}
