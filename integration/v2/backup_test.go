package v2

import (
	"path/filepath"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

// If this fails, a backup cannot be started, or lacks what was written last.
func TestBackupStarts(t *testing.T) {
	kvctl := toolBinary(t)
	c := start(t, process.Options{Binary: kvorumBinary(t), Size: 1})
	m := c.Members[0]
	s := newServer(t, "kvorum", m.ClientURL)
	for _, line := range []string{"set /a one", "set --ttl 1000 /b/c two"} {
		if got := s.types(kvctl, line); got[:6] != "exit 0" {
			t.Fatalf("%s: %s", line, got)
		}
	}
	online, offline := filepath.Join(t.TempDir(), "online"), filepath.Join(t.TempDir(), "offline")
	dataDir := m.Dir
	if got := s.types(kvctl, "backup --data-dir "+dataDir+" --backup-dir "+offline); got[:6] != "exit 1" {
		t.Fatalf("backup of the directory of a running member: %s", got)
	}
	if got := s.types(kvctl, "backup --with-v3 --backup-dir "+online); got[:6] != "exit 0" {
		t.Fatalf("backup of a running member: %s", got)
	}
	m.Kill() // what was not flushed is in the log alone
	if got := s.types(kvctl, "backup --with-v3 --data-dir "+dataDir+" --backup-dir "+offline); got != "exit 0\n--\n" {
		t.Fatalf("backup of a stopped member: %s", got)
	}
	if got := s.types(kvctl, "backup --data-dir "+dataDir+" --backup-dir "+offline); got[:6] != "exit 1" {
		t.Fatalf("backup over a backup: %s", got)
	}
	for _, dir := range []string{online, offline} {
		m.Args = append(m.Args, "--data-dir", dir, "--force-new-cluster")
		if err := m.Start(); err != nil {
			t.Fatalf("start on %s: %v", dir, err)
		}
		for key, value := range map[string]string{"/a": "one", "/b/c": "two"} {
			if got := s.types(kvctl, "get "+key); got != "exit 0\n"+value+"\n--\n" {
				t.Fatalf("%s: %s: %s", dir, key, got)
			}
		}
		if got := s.types(kvctl, "set /b/c three"); got[:6] != "exit 0" {
			t.Fatalf("%s: %s", dir, got)
		}
		m.Kill()
	}
}
