package srv

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// FuzzAnswer: if it fails, a name server ends a member or a client with what it
// answers.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00\x05_etcd\x04_tcp\x01d\x00\x00\x21\x00\x01\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x3c\x00\x0a\x00\x00\x00\x00\x09\x4b\x01h\x01d\x00"))
	f.Add([]byte("\x85\x83\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if len(answer) > 60_000 {
			return
		}
		resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer func() { _ = theirs.Close() }()
				query := make([]byte, 4) // its length and its id
				if _, err := io.ReadFull(theirs, query); err != nil {
					return
				}
				rest := make([]byte, binary.BigEndian.Uint16(query)-2)
				if _, err := io.ReadFull(theirs, rest); err == nil {
					head := binary.BigEndian.AppendUint16(nil, uint16(2+len(answer))) //nolint:gosec // bounded above
					_, _ = theirs.Write(append(append(head, query[2:]...), answer...))
				}
			}()
			return ours, nil
		}}
		targets, err := Lookup(ctx, Question{Service: Client, Domain: "d", Resolver: resolver})
		for _, target := range targets {
			if err == nil && (target.URL() == "" || target.Address() == "") {
				t.Errorf("%+v", target)
			}
		}
	})
}
