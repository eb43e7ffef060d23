package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
)

// The requests of ioctl that stop and resume all writing to a file system.
const (
	ioctlFreeze = 0xC0045877
	ioctlThaw   = 0xC0045878
)

// stallable is where members live whose disks can be made to hang.
type stallable struct {
	t    *testing.T
	dirs map[string]string // mounted file systems, by member; none: strace holds the calls up
}

// newStallable mounts a file system for each member, or falls back to strace.
func newStallable(t *testing.T, names ...string) *stallable {
	t.Helper()
	s := &stallable{t: t, dirs: map[string]string{}}
	for _, name := range names {
		dir, err := mountLoop(t)
		if err != nil {
			t.Logf("no file system to freeze (%v); strace holds the calls up", err)
			s.dirs = nil
			needStrace(t)
			return s
		}
		s.dirs[name] = dir
	}
	return s
}

func (s *stallable) memberDir(root string) func(name string) string {
	return func(name string) string {
		if dir := s.dirs[name]; dir != "" {
			return filepath.Join(dir, name+".etcd")
		}
		return filepath.Join(root, name+".etcd")
	}
}

// mountLoop makes a file system in a file and mounts it.
func mountLoop(t *testing.T) (string, error) {
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return "", err
	}
	if err := os.Truncate(image, 400<<20); err != nil {
		return "", err
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", command[0], err, out)
		}
	}
	t.Cleanup(func() {
		_ = freezeIoctl(dir, ioctlThaw) // it fails when nothing is frozen
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir, nil
}

func freezeIoctl(dir string, request uintptr) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, 0); errno != 0 {
		return errno
	}
	return nil
}

// stall makes the disk of a member hang until resume is called.
func (s *stallable) stall(m *process.Member) (resume func()) {
	s.t.Helper()
	if s.dirs == nil {
		return trace(s.t, m, "", "fdatasync,fsync:delay_enter=600s")
	}
	dir := s.dirs[m.Name]
	// Before the member is ended, which cannot die while it waits for its disk.
	s.t.Cleanup(func() { _ = freezeIoctl(dir, ioctlThaw) }) // it fails when nothing is frozen
	check(s.t, freezeIoctl(dir, ioctlFreeze))
	return func() { check(s.t, freezeIoctl(dir, ioctlThaw)) }
}

func needStrace(t *testing.T) {
	t.Helper()
	if err := exec.Command("strace", "-e", "inject=fsync:error=EIO", "true").Run(); err != nil {
		t.Skipf("neither a loop device nor strace works here (%v); raft/stall_test.go and raft/wal/crash_test.go test the same with a disk in memory", err)
	}
}

// trace changes what system calls of a member do, of those on one file if path is
// not empty, until end is called.
func trace(t *testing.T, m *process.Member, path, inject string) (end func()) {
	t.Helper()
	args := []string{"-f", "-p", fmt.Sprint(m.PID()), "-o", os.DevNull, "-e", "inject=" + inject}
	if path != "" {
		args = append(args, "-P", path)
	}
	c := exec.Command("strace", args...)
	stderr, err := c.StderrPipe()
	check(t, err)
	check(t, c.Start())
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "attached") {
		t.Log(lines.Text())
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	done := false
	end = func() {
		if !done {
			done = true
			_ = c.Process.Signal(syscall.SIGTERM)
			_ = c.Wait() // of the signal
		}
	}
	t.Cleanup(end)
	return end
}

// If this fails, a leader whose disk hangs stays in office and nobody can write,
// or leases of clients that are alive end meanwhile, or it loses data afterwards.
func TestStalledLeader(t *testing.T) {
	t.Parallel()
	s := newStallable(t, "m1", "m2", "m3")
	e := start(t, process.Options{Size: 3, MemberDir: s.memberDir(t.TempDir())})
	const ttl = 10
	lease, err := e.client.Grant(e.ctx, ttl)
	check(t, err)
	_, err = e.client.Put(e.ctx, "held", "x", client.Lease(lease.ID))
	check(t, err)
	alive := e.client.KeepAlive(e.ctx, lease.ID)
	j := e.load(newRand(t), "stall/", 4, 64)
	var took []time.Duration
	for range rounds(3, 20) {
		j.progress(30)
		old, rest := e.followers()
		e.avoid(old) // its requests would hang until their timeout
		j.progress(30)
		began := time.Now()
		resume := s.stall(old)
		next := e.leader(old)
		took = append(took, time.Since(began))
		j.progress(50) // without the stalled disk
		if !contains(rest, next) {
			t.Errorf("%s leads", next.Name)
		}
		resume()
		e.avoid()
		e.caughtUp(append(rest, old))
	}
	slices.Sort(took)
	t.Logf("a new leader after the disk of the old one stalled: median %v, longest %v of %d", took[len(took)/2], took[len(took)-1], len(took))
	// Two election timeouts; the rest is for a busy machine.
	if limit := 2*electionTimeout + 4*time.Second; took[len(took)-1] > limit {
		t.Errorf("%v until there was a new leader, with a limit of %v", took[len(took)-1], limit)
	}
	a, err := e.client.Get(e.ctx, "held")
	if err != nil || len(a.Kvs) != 1 {
		t.Errorf("the lease that was kept alive has ended: %v", err)
	}
	select {
	case _, ok := <-alive:
		if !ok {
			t.Error("the keep-alive ended")
		}
	default:
		t.Error("no keep-alive was answered")
	}
	j.finish()
	e.checkEqual()
}

// If this fails, a follower whose disk hangs harms the cluster, takes memory
// without bound, or does not come back.
func TestStalledFollower(t *testing.T) {
	t.Parallel()
	s := newStallable(t, "m1", "m2", "m3")
	e := start(t, process.Options{Size: 3, MemberDir: s.memberDir(t.TempDir())})
	lead, rest := e.followers()
	slow := rest[0]
	e.avoid(slow)
	j := e.load(newRand(t), "slow/", 4, 64)
	j.progress(30)
	before := e.memory(slow)
	resume := s.stall(slow)
	e.avoid(slow)
	e.putMany("big/", rounds(300, 3000), 8, strings.Repeat("x", 100<<10)) // 30 MB
	j.progress(100)
	if grown, most := e.memory(slow)-before, int64(700<<20); grown > most {
		t.Errorf("the stalled member has grown by %d bytes", grown)
	}
	if now := e.leader(slow); now != lead {
		t.Errorf("%s leads in place of %s, whose disk is well", now.Name, lead.Name)
	}
	resume()
	e.avoid()
	e.caughtUp(e.Members)
	j.finish()
	e.checkEqual()
}

// If this fails, a member goes on after its disk has failed, and acknowledges
// what is not stored, or does not say which file it was.
func TestFailedSync(t *testing.T) {
	needStrace(t)
	for name, file := range map[string]func(dir string) string{
		"log":      func(dir string) string { return logSegments(t, dir)[0] },
		"database": func(dir string) string { return filepath.Join(dir, "member", "snap", "db") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, process.Options{Size: 3})
			j := e.load(newRand(t), "eio/", 4, 64)
			j.progress(50)
			m := e.leader()
			path := file(m.Dir)
			end := trace(t, m, path, "fdatasync,fsync:error=EIO")
			e.waitExit(m)
			end()
			if !says(m, 0, "input/output error") || !says(m, 0, filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path)) {
				t.Errorf("the member does not say what failed on %s:\n%s", path, m.LogTail(10))
			}
			if code := m.Ended(); code.ExitCode() != 1 {
				t.Errorf("it ended with %v", code)
			}
			j.progress(50)
			e.mustStart(m)
			e.caughtUp(e.Members)
			j.finish()
			e.checkEqual()
		})
	}
}

// If this fails, a defragmentation for which there is no room stops the member,
// or leaves its half-made copy on the full disk.
func TestNoRoomToDefragment(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 320<<20)
	e := start(t, process.Options{Size: 1, MemberDir: func(string) string { return filepath.Join(disk, "m1.etcd") }})
	m := e.Members[0]
	e.putMany("big/", 300, 4, strings.Repeat("x", 100<<10)) // 30 MB
	ballast := filepath.Join(disk, "ballast")
	check(t, fillFile(disk, ballast, 12<<20))
	ctx, cancel := e.brief(waitMax)
	defer cancel()
	if err := defragment(ctx, e, m); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("defragmentation on a full disk: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(m.Dir, "member", "snap", "db.tmp*")); len(left) > 0 {
		t.Errorf("the half-made copy stays: %v", left)
	}
	e.mustPut("goes", "on")
	check(t, os.Remove(ballast))
	check(t, defragment(ctx, e, m))
	e.mustPut("goes", "on")
}

func defragment(ctx context.Context, e *env, m *process.Member) error {
	return e.at(m).Defragment(ctx, m.Endpoint())
}

// If this fails, a member that has no room for a snapshot of the leader ends, or
// does not take it when there is room again.
func TestNoRoomForSnapshot(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 220<<20)
	dir := t.TempDir()
	e := start(t, process.Options{Size: 3, Dir: dir, Args: smallLog(), MemberDir: func(name string) string {
		if name == "m1" {
			return filepath.Join(disk, "m1.etcd")
		}
		return filepath.Join(dir, name+".etcd")
	}})
	late := e.Members[0]
	if !late.Terminate() {
		t.Fatal("it did not stop")
	}
	e.avoid(late)
	e.leader(late)
	e.putMany("big/", 400, 4, strings.Repeat("x", 100<<10)) // 40 MB
	ballast := filepath.Join(disk, "ballast")
	check(t, fillFile(disk, ballast, 20<<20))
	from := mark(late)
	check(t, late.Launch())
	e.waitSays(late, from, "no space left on device")
	check(t, os.Remove(ballast))
	e.caughtUp(e.Members)
	if late.PID() == 0 {
		t.Error("the member ended")
	}
	e.avoid()
	e.checkEqual()
}
