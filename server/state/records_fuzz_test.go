package state

import "testing"

// FuzzRecords: if it fails, a damaged record of a lease or member, or a
// membership change in the log, ends the member that reads it.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{8, 1, 0x10, 60}, byte(0), uint64(1))
	f.Add([]byte("8e9e05c52164694d"), byte(1), uint64(2))
	f.Add([]byte(`{"id":7,"peerURLs":["http://a:1"],"isPromote":true}`), byte(3), uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, kind byte, id uint64) {
		_, _ = decodeLease(b) // an error is an answer
		if got, err := parseMemberKey(b); err == nil && string(memberKey(got)) != string(b) && len(b) == len(memberKey(got)) && b[0] >= 'a' {
			t.Errorf("%q is %x", b, got)
		}
		if c, err := decodeContext(ConfChange{Kind: ConfChangeKind(kind), Member: MemberID(id), Context: b}); err == nil && c.ID != MemberID(id) {
			t.Errorf("the context of another member was taken: %+v", c)
		}
	})
}
