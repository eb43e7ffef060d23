package ctl

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
	"github.com/kvorum/kvorum/mvcc"
)

// checked is what `check --data-dir -w json` prints.
type checked struct {
	Sound    bool
	Problems []struct {
		Severity, File, Problem, Advice string
		Offset                          *int64
		Key                             []byte
	}
}

// checkData runs the check and returns its exit code too.
func checkData(t *testing.T, dir string) (r checked, code int) {
	t.Helper()
	out, err := try(nil, "check", "--data-dir", dir, "-w", "json")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if out != "" {
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	return r, code
}

// fingerprint is the hash and time of every file below dir.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path) //nolint:gosec // the test's own
		fmt.Fprintf(&all, "%s %s %x\n", path, info.ModTime(), sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// flip changes one bit.
func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the test's own
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 4
	if err == nil {
		_, err = f.WriteAt(b[:], at)
	}
	return errors.Join(err, f.Close())
}

// If this fails, an operator learns of damage only when a server does not start
// or serves wrong data, is not told what to do, or the check itself changes the
// only copy.
func TestCheckNamesDamage(t *testing.T) {
	t.Parallel()
	c := start(t, process.Options{Size: 1, Args: []string{"--snapshot-count", "20"}})
	m := c.Members[0]
	fill(t, c.Endpoints())
	putMany(t, c.Endpoints(), "many/", 60)
	if _, code := checkData(t, m.Dir); code != 2 {
		t.Errorf("check of a running member: exit code %d", code)
	}
	if _, err := try(nil, "check", "--data-dir", m.Dir); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("check of a running member: %v", err)
	}
	m.Terminate()
	before := fingerprint(t, m.Dir)
	if r, code := checkData(t, m.Dir); code != 0 || !r.Sound || len(r.Problems) != 0 {
		t.Fatalf("sound data: code %d, %+v", code, r)
	}
	if after := fingerprint(t, m.Dir); after != before {
		t.Errorf("the check changed\n%s\nto\n%s", before, after)
	}
	if _, code := checkData(t, t.TempDir()); code != 2 {
		t.Errorf("check of an empty folder: exit code %d", code)
	}
	for _, d := range damages() {
		t.Run(d.name, func(t *testing.T) { d.run(t, m.Dir) })
	}
}

// damage is one way to harm a member's data, and how the check tells it.
type damage struct {
	name string
	do   func(dir string) error
	file string // part of its path
	want string // part of the problem
	key  string
	at   bool // the offset is told
}

const (
	wal = "member/wal/0000000000000000-0000000000000000.wal"
	db  = "member/snap/db"
)

func damages() []damage {
	edit := func(f func(e *mvcc.Editor) error) func(string) error {
		return func(dir string) error { return mvcc.Edit(filepath.Join(dir, db), f) }
	}
	record := func(rev byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, rev, '_', 0, 0, 0, 0, 0, 0, 0, 0} }
	return []damage{
		{"log bit", func(dir string) error { return flip(filepath.Join(dir, wal), 1500) }, wal, "crc mismatch", "", true},
		{"log cut", func(dir string) error { return os.Truncate(filepath.Join(dir, wal), 1504) }, "member", "", "", false},
		{"log gone", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "member/wal")) }, "member/wal", "the log is missing", "", false},
		{"segment gone", func(dir string) error { return os.Remove(filepath.Join(dir, wal)) }, "member/wal", "holds no segment", "", false},
		{"snapshot bit", func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "member/snap/*.snap"))
			if err != nil || len(files) == 0 {
				return fmt.Errorf("no snapshot: %w", err)
			}
			return flip(files[len(files)-1], 100)
		}, ".snap", "crc mismatch", "", false},
		{"database page", func(dir string) error { // the live page is not known: all but the two of the meta data
			var err error
			for at := int64(2 * 4096); at < 8*4096; at += 4096 {
				err = errors.Join(err, flip(filepath.Join(dir, db), at))
			}
			return err
		}, db, "bad header", "", true},
		{"database cut", func(dir string) error { return os.Truncate(filepath.Join(dir, db), 8192+100) }, db, "pages of 4096", "", false},
		{"database gone", func(dir string) error { return os.Remove(filepath.Join(dir, db)) }, db, "is missing", "", false},
		{"record", edit(func(e *mvcc.Editor) error { return e.Set(mvcc.BucketKey, record(20), []byte{0xff}) }), db, "record 20.0", "", false},
		{"record of another key", edit(func(e *mvcc.Editor) error {
			return e.Set(mvcc.BucketKey, record(20), []byte("\x0a\x04mine\x10\x14\x18\x15\x20\x01"))
		}), db, "says that its revision is 21", "mine", false},
		{"lease gone", edit(func(e *mvcc.Editor) error { return e.Clear(mvcc.BucketLease) }), db, "attached to lease", "leased", false},
		{"lease record", edit(func(e *mvcc.Editor) error {
			return e.Set(mvcc.BucketLease, []byte{0, 0, 0, 0, 0, 0, 0, 9}, []byte{8, 9})
		}), db, "lease 0000000000000009", "", false},
		{"members gone", edit(func(e *mvcc.Editor) error { return e.Clear(mvcc.BucketMembers) }), db, "the log has voter", "", false},
		{"user", edit(func(e *mvcc.Editor) error { return e.Set(mvcc.BucketAuthUsers, []byte("eve"), []byte{0xff}) }), db, `user "eve"`, "", false},
		{"index ahead", edit(func(e *mvcc.Editor) error { return e.SetApplied(mvcc.Applied{Index: 9999, Term: 2}) }), db, "the log ends at", "", false},
	}
}

func (d damage) run(t *testing.T, from string) {
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := d.do(dir); err != nil {
		t.Fatal(err)
	}
	r, code := checkData(t, dir)
	if code != 1 || r.Sound {
		t.Errorf("exit code %d: %+v", code, r)
	}
	for _, p := range r.Problems {
		if p.Severity == "damage" && strings.Contains(p.File, d.file) && strings.Contains(p.Problem, d.want) && string(p.Key) == d.key &&
			(p.Offset != nil || !d.at) && strings.Contains(p.Advice, "kvctl ") && !strings.Contains(p.Advice, "DIR") {
			return
		}
	}
	t.Errorf("not named: %+v", r.Problems)
}
