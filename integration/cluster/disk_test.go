package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

// If this fails, a full disk of one member stops the cluster, or the member
// goes on with a damaged log, or does not come back when there is room again.
func TestFullDisk(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d-nodes", size), func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, 160<<20)
			dir := t.TempDir()
			e := start(t, process.Options{Size: size, Dir: dir, MemberDir: func(name string) string {
				if name == "m1" {
					return filepath.Join(disk, "m1.etcd")
				}
				return filepath.Join(dir, name+".etcd")
			}})
			e.fillDisk(disk)
		})
	}
}

// smallDisk mounts a file system of a few bytes.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", bytes))
	if err != nil {
		t.Skipf("a small disk for one member cannot be mounted here (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fillDisk leaves the member m1 a few MB, writes until it ends, makes room and
// starts it again.
func (e *env) fillDisk(disk string) {
	e.t.Helper()
	m := e.Members[0]
	j := e.load(newRand(e.t), "full/", 4, 16<<10)
	j.progress(20)
	ballast := filepath.Join(disk, "ballast")
	if err := fillFile(disk, ballast, 4<<20); err != nil {
		e.t.Fatal(err)
	}
	from := 0
	e.waitExit(m)
	if !says(m, from, "no space left on device") {
		e.t.Errorf("the member does not say why it ended:\n%s", m.LogTail(10))
	}
	if end := m.Ended(); end.ExitCode() != 1 {
		e.t.Errorf("the member ended with %v:\n%s", end, m.LogTail(30))
	}
	if len(e.Members) > 1 {
		e.avoid(m)
		j.progress(100)
		e.avoid()
	}
	if err := os.Remove(ballast); err != nil {
		e.t.Fatal(err)
	}
	e.mustStart(m)
	j.progress(20)
	j.finish()
}

// fillFile makes a file that leaves so many bytes of a file system.
func fillFile(disk, path string, leave uint64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(disk, &fs); err != nil {
		return err
	}
	free := fs.Bavail * uint64(fs.Bsize)
	if free < leave {
		return fmt.Errorf("%s has only %d bytes left", disk, free)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, int64(free-leave))
	return errors.Join(err, f.Close())
}

// damage is what happened to the files of a stopped member, and what must come
// of it.
type damage struct {
	name string
	do   func(t *testing.T, dir string)
	// What the member says when it refuses to start; "" = it starts.
	refuses string
	// The same for a log that begins with a snapshot; "" = as above.
	refusesAfterSnapshot string
	// What it says when it starts.
	warns string
}

func damages() []damage {
	db := func(dir string) string { return filepath.Join(dir, "member", "snap", "db") }
	wal := func(dir string) string { return filepath.Join(dir, "member", "wal") }
	return []damage{
		{name: "torn-tail", warns: "repaired a torn write", do: func(t *testing.T, dir string) { tearLog(t, dir, newRand(t)) }},
		{name: "preallocation-cut-off", do: func(t *testing.T, dir string) {
			last := lastSegment(t, dir)
			_, end := recordsOf(t, last)
			check(t, os.Truncate(last, end))
		}},
		{name: "truncated-inside-a-record", warns: "repaired a torn write", do: func(t *testing.T, dir string) {
			// The last record is behind what is committed: one more, cut short.
			last := lastSegment(t, dir)
			_, end := recordsOf(t, last)
			check(t, writeAt(last, end, []byte{200, 0, 0, 0, 0, 0, 0, 0, 8, 2}))
			check(t, os.Truncate(last, end+10))
		}},
		{name: "committed-record-cut-off", refuses: "restore this member", do: func(t *testing.T, dir string) {
			last := lastSegment(t, dir)
			offsets, _ := recordsOf(t, last)
			check(t, os.Truncate(last, offsets[len(offsets)/2]))
		}},
		{name: "damaged-middle", refuses: "walpb: crc mismatch: expected: ", do: func(t *testing.T, dir string) {
			last := lastSegment(t, dir)
			offsets, _ := recordsOf(t, last)
			flipByte(t, last, offsets[len(offsets)/2]+20)
		}},
		{name: "first-segment-missing", refuses: "failed to open WAL", do: func(t *testing.T, dir string) {
			check(t, os.Rename(logSegments(t, dir)[0], filepath.Join(wal(dir), "0000000000000001-0000000000001000.wal")))
		}},
		{name: "log-missing", refuses: "holds no log", do: func(t *testing.T, dir string) { check(t, os.RemoveAll(wal(dir))) }},
		{name: "database-missing", refusesAfterSnapshot: "failed to find database snapshot file", do: func(t *testing.T, dir string) { check(t, os.Remove(db(dir))) }},
		{name: "database-torn", refuses: "open database", do: func(t *testing.T, dir string) { check(t, os.Truncate(db(dir), 5000)) }},
		{name: "database-of-zeros", refuses: "open database", do: func(t *testing.T, dir string) {
			check(t, writeAt(db(dir), 0, make([]byte, 16384)))
		}},
		{name: "leftovers", do: func(t *testing.T, dir string) {
			check(t, os.WriteFile(filepath.Join(dir, "member", "snap", "tmp123"), []byte("x"), 0o600))
			check(t, os.WriteFile(filepath.Join(dir, "member", "snap", "db.tmp.1"), []byte("x"), 0o600))
			check(t, os.WriteFile(filepath.Join(wal(dir), "0.tmp"), []byte("x"), 0o600))
			check(t, os.MkdirAll(wal(dir)+".tmp", 0o700))
		}},
		{name: "snapshot-files-missing", do: func(t *testing.T, dir string) {
			names, _ := filepath.Glob(filepath.Join(dir, "member", "snap", "*.snap"))
			for _, n := range names {
				check(t, os.Remove(n))
			}
		}},
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lastSegment(t *testing.T, dir string) string {
	t.Helper()
	all := logSegments(t, dir)
	return all[len(all)-1]
}

func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	check(t, err)
	_, err = f.WriteAt([]byte{^b[0]}, at)
	check(t, errors.Join(err, f.Close()))
}

// If this fails, a member whose files were damaged starts with wrong data, or
// does not start and does not say why, or hangs.
func TestDamagedFiles(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshots=%t", snapshots), func(t *testing.T) {
			t.Parallel()
			o := process.Options{Size: 1}
			if snapshots {
				o.Args = smallLog()
			}
			r := newRand(t)
			e := start(t, o)
			m := e.Members[0]
			j := e.load(r, "d/", 4, 64)
			j.progress(int64(300 + r.IntN(200)))
			j.stop()
			j.done.Wait()
			if snapshots {
				e.waitSays(m, 0, "saved snapshot")
			}
			m.Kill()
			sound := filepath.Join(t.TempDir(), "sound")
			check(t, os.CopyFS(sound, os.DirFS(m.Dir)))
			for _, d := range damages() {
				if snapshots && d.refusesAfterSnapshot != "" {
					d.refuses = d.refusesAfterSnapshot
				}
				t.Run(d.name, func(t *testing.T) {
					check(t, os.RemoveAll(m.Dir))
					check(t, os.CopyFS(m.Dir, os.DirFS(sound)))
					d.do(t, m.Dir)
					e.startDamaged(t, d, j)
				})
			}
		})
	}
}

func (e *env) startDamaged(t *testing.T, d damage, j *journal) {
	t.Helper()
	m := e.Members[0]
	from := mark(m)
	err := m.Start()
	defer m.Kill()
	if d.refuses == "" {
		if err != nil {
			t.Fatal(err)
		}
		if d.warns != "" && !says(m, from, d.warns) {
			t.Errorf("it starts without a word about the damage:\n%s", m.LogTail(10))
		}
		j.check()
		return
	}
	if err == nil {
		t.Fatalf("it starts:\n%s", m.LogTail(10))
	}
	lines, _ := m.Log(from)
	if !strings.Contains(strings.Join(lines, "\n"), d.refuses) {
		t.Errorf("it does not say %q:\n%s", d.refuses, m.LogTail(10))
	}
	if end := m.Ended(); end == nil || end.ExitCode() != 1 {
		t.Errorf("it ended with %v", end)
	}
}

// If this fails, two processes write to one data directory.
func TestSecondProcessOnTheSameData(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 1})
	m := e.Members[0]
	e.mustPut("a", "b")
	ports, err := process.FreePorts(2)
	check(t, err)
	second := &process.Member{Name: "second", Binary: m.Binary, Dir: m.Dir, ClientURL: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	second.Args = append(append([]string(nil), m.Args...), "--listen-client-urls", second.ClientURL, "--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", ports[1]))
	check(t, second.Launch())
	defer second.Kill()
	until(t, "the second process says that the data is in use", waitMax, func() error {
		if says(second, 0, "another process") || says(second, 0, "already locked") {
			return nil
		}
		return errors.New(second.LogTail(5))
	})
	if says(second, 0, "ready to serve") {
		t.Error("both processes serve")
	}
	e.mustPut("a", "c")
}
