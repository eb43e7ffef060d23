package offline

import (
	"fmt"
	"testing"
)

// If this fails, an operator's typing error is taken for a position, and the wrong member may be recovered from.
func FuzzParsePosition(f *testing.F) {
	for _, text := range []string{"3/17", "0/0", "3", "/", "-1/2", "18446744073709551615/1", "3/17/4", " 3/17"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePosition(text)
		if err != nil {
			return
		}
		if again, err := ParsePosition(fmt.Sprintf("%d/%d", p.Term, p.Index)); err != nil || again != p {
			t.Errorf("%q is %v, and that is %v, %v", text, p, again, err)
		}
	})
}
