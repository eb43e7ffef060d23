package linear

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// diskBytes is the size of a disk: some segments of the log and a database.
const diskBytes = 700 << 20

// disk is a file system of one member's own, in a file, which can be filled and stalled.
type disk struct{ dir string }

// newDisk makes and mounts a disk below dir, which takes root.
func newDisk(dir string) (*disk, error) {
	image, mount := filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk")
	f, err := os.Create(image)
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	if err := errors.Join(f.Truncate(diskBytes), f.Close(), os.Mkdir(mount, 0o700)); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make disk: %s: %w: %s", command[0], err, out)
		}
	}
	return &disk{dir: mount}, nil
}

func (d *disk) remove() error { return syscall.Unmount(d.dir, syscall.MNT_DETACH) }

// stall lets nothing be written for a while. A process of its own ends the stall, whatever becomes of this one.
func (d *disk) stall(ctx context.Context, long time.Duration) error {
	const script = `fsfreeze -f "$1" && { sleep "$2"; fsfreeze -u "$1"; }`
	out, err := exec.Command("sh", "-c", script, "sh", d.dir, fmt.Sprintf("%.3f", long.Seconds())).CombinedOutput()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("stall the disk: %w: %s", err, out)
	}
	return nil
}

// fill leaves so many bytes free; empty takes that back.
func (d *disk) fill(leave uint64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &fs); err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	if free <= leave {
		return nil
	}
	f, err := os.Create(d.ballast())
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	err = errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, int64(free-leave)), f.Close())
	if err != nil && !errors.Is(err, syscall.ENOSPC) { // the member has taken some meanwhile
		return fmt.Errorf("fill the disk: %w", err)
	}
	return nil
}

func (d *disk) empty() error { return os.RemoveAll(d.ballast()) }

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// stalledDisk lets every fsync of a member hang.
func (f *injector) stalledDisk(ctx context.Context) error {
	return f.disk.stall(ctx, f.between(200*time.Millisecond, 3*time.Second))
}

// slowDisk lets it hang again and again.
func (f *injector) slowDisk(ctx context.Context) error {
	for n := 4 + f.random.IntN(8); n > 0 && ctx.Err() == nil; n-- {
		if err := f.disk.stall(ctx, f.between(20*time.Millisecond, 400*time.Millisecond)); err != nil {
			return err
		}
		wait(ctx, f.between(time.Millisecond, 100*time.Millisecond))
	}
	return nil
}

// fullDisk takes the room of a member away for a while. A segment of the log that it has already reserved lasts for long,
// so it is killed in the middle: the next start finds no room.
func (f *injector) fullDisk(ctx context.Context) error {
	f.filled = true
	if err := f.disk.fill(uint64(f.random.IntN(1 << 20))); err != nil {
		return err
	}
	wait(ctx, f.between(500*time.Millisecond, 2*time.Second))
	if f.random.IntN(2) == 0 {
		f.end(f.diskOf)
		if err := f.cluster.Members[f.diskOf].Launch(); err != nil {
			return err
		}
		wait(ctx, f.between(200*time.Millisecond, time.Second))
	}
	if err := f.disk.empty(); err != nil {
		return err
	}
	if f.serve(f.diskOf) != nil { // it has ended in the middle of its start
		m := f.cluster.Members[f.diskOf]
		m.WaitExit()
		return m.Launch()
	}
	return nil
}
