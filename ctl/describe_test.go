package ctl

import (
	"strings"
	"testing"
)

// If this fails, there is a command whose help does not show how it is typed, or
// that stands under no heading.
func TestEveryCommandHasAnExample(t *testing.T) {
	for _, name := range []string{nameOwn, nameOnline, nameOffline} {
		seen := 0
		for _, c := range Describe(name) {
			if c.Path == "" || c.Path == "help" {
				continue
			}
			seen++
			if !strings.Contains(c.Example, name+" ") {
				t.Errorf("%s %s: the example is %q", name, c.Path, c.Example)
			}
			if !strings.Contains(c.Path, " ") && c.Group == "" {
				t.Errorf("%s %s is in no group", name, c.Path)
			}
		}
		if seen < 5 {
			t.Errorf("%s has only %d commands", name, seen)
		}
	}
}
