package peer

import (
	"bytes"
	"testing"
)

// FuzzRequests: if it fails, what a caller of the peer port says, or the URLs
// that it names, end the process.
func FuzzRequests(f *testing.F) {
	f.Add([]byte{8, 8, 0x10, 1, 0x18, 2}, "/raft/stream/msgapp/1f", "http://a:1,unix://s")
	f.Add([]byte{0xff}, "/raft/stream//", "://")
	f.Fuzz(func(t *testing.T, body []byte, path, urls string) {
		if m, n, err := decodeBody(bytes.NewReader(body), int64(len(body))); err == nil && (m == nil || n != len(body)) {
			t.Errorf("%d of %d bytes were read", n, len(body))
		}
		_, _, _ = parseStreamPath(path)
		if bases, err := parseURLs([]string{urls}); err == nil && len(bases) != 1 {
			t.Errorf("%q is %v", urls, bases)
		}
	})
}
