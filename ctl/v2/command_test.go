package v2

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

// If this fails, a script for etcdctl watches or sets another key than before.
// Right of the arrow is what the flag package gets to read.
func TestFlagsFirst(t *testing.T) {
	for line := range strings.Lines(`
a b => a b
a b --ttl 5 => --ttl 5 a b
a --ttl=5 b => --ttl=5 a b
-r a b => -r a b
a -r b => -r b a
a b -r c => -r c a b
a -k => a -k
-- -k v => -- -k v
a -- -k => -- a -k
-r a -- b c => -r a -- b c
a -r -- b c => -r -- a b c
--ttl 5 -r a -- b => --ttl 5 -r a -- b
--bogus a => --bogus a
a - => a -
`) {
		typed, want, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok {
			continue
		}
		f := flag.NewFlagSet("", flag.ContinueOnError)
		f.Bool("r", false, "")
		f.Int("ttl", 0, "")
		if got := flagsFirst(f, strings.Fields(typed)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, want %s", typed, got, want)
		}
	}
}
