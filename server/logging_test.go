package server

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// If this fails, a script that waits for a line of etcd's log waits for ever, or
// passwords and values can be read in the log.
func TestLogOfAMember(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	m := startMember(t, func(c *Config) {
		c.LogLevel, c.LogOutputs, c.SlowApply, c.SlowRequest = "debug", []string{path}, 1, 1
	})
	useAudited(t, m)
	wanted := []string{
		"restore consistentIndex", "kvstore restored", hexID(uint64(m.self)) + " became leader at term 2",
		"raft.node: " + hexID(uint64(m.self)) + " elected leader " + hexID(uint64(m.self)) + " at term 2",
		"set initial cluster version", "updated storage version", "serving peer traffic", "published local member to cluster through raft",
		"ready to serve client requests", "serving client traffic insecurely; this is strongly discouraged!", "request stats", "apply request took too long",
	}
	text := string(must[[]byte](t)(os.ReadFile(path)))
	for line := range strings.Lines(text) {
		var l struct{ Level, TS, Caller, Msg string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level == "" || l.TS == "" || l.Caller == "" || l.Msg == "" {
			t.Fatalf("%v in %s", err, line)
		}
		if l.Level == "error" {
			t.Errorf("an error is logged though nothing was wrong: %s", line)
		}
		wanted = slices.DeleteFunc(wanted, func(w string) bool { return w == l.Msg })
	}
	if len(wanted) > 0 {
		t.Errorf("these lines are missing: %q in\n%s", wanted, text)
	}
	if strings.Contains(text, "s3cr3t") {
		t.Error("a secret is in the log")
	}
}
