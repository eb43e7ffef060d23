package power

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Command is strace and its arguments in front of a program: it writes the
// trace to a file and stays out of the way of signals.
func Command(trace string) (program string, args []string, err error) {
	program, err = exec.LookPath("strace")
	if err != nil {
		return "", nil, fmt.Errorf("power loss is simulated from a trace: %w", err)
	}
	return program, []string{
		"-D", "-f", "--seccomp-bpf", "-y", "-xx", "-ttt", "-s", "33554432", "-o", trace,
		"-e", "trace=" + traced, "--",
	}, nil
}

// traced are the calls that change files and those that could, unseen by Disk;
// Parse refuses the latter below the root.
const traced = "openat,write,pwrite64,fsync,fdatasync,ftruncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat," +
	"open,creat,truncate,writev,pwritev,pwritev2,copy_file_range,sendfile,splice,link,linkat,symlink,symlinkat,sync_file_range,sync,syncfs"

// kind of a call.
type kind int

const (
	opOpen   kind = iota
	opCreate      // truncating when size is 0, else -1
	opMkdir
	opWrite // at off; -1: where the descriptor stands
	opTruncate
	opAllocate // extends to off+size
	opSync
	opRename
	opRemove
)

// call is one system call below the root, as it ended.
type call struct {
	kind     kind
	path, to string
	fd       int // of opWrite without offset, and of opCreate
	off      int64
	size     int64
	data     []byte
}

// event is the begin or the end of a call.
type event struct {
	at   float64 // seconds since 1970
	end  bool
	call *call
}

var errTrace = errors.New("power: cannot read trace")

// Parse reads a trace and gives the begins and ends of calls below root, in
// order. Calls that failed are left out.
func Parse(r io.Reader, root string) ([]event, error) {
	p := parser{root: filepath.Clean(root), open: map[string]*pending{}}
	in := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if line != "" {
			if e := p.line(strings.TrimSuffix(line, "\n")); e != nil {
				return nil, fmt.Errorf("%w: line %d: %w", errTrace, n, e)
			}
		}
		if err == io.EOF {
			return p.events(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errTrace, err)
		}
	}
}

// pending is a call that another thread's line has cut in two.
type pending struct {
	text  string
	begun int // index in all
}

type parser struct {
	root string
	all  []event
	open map[string]*pending // by thread
}

// events leaves out what turned out not to matter.
func (p *parser) events() []event {
	var kept []event
	for _, e := range p.all {
		if e.call != nil {
			kept = append(kept, e)
		}
	}
	return kept
}

func (p *parser) line(line string) error {
	thread, rest, _ := strings.Cut(line, " ")
	stamp, text, ok := strings.Cut(strings.TrimLeft(rest, " "), " ")
	if !ok || strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---") {
		return nil
	}
	at, err := strconv.ParseFloat(stamp, 64)
	if err != nil {
		return err
	}
	if head, cut := strings.CutSuffix(text, " <unfinished ...>"); cut {
		p.open[thread] = &pending{head, len(p.all)}
		c, err := p.call(head + ") = 0") // for writes: what may be on disk though it never ended
		if c != nil && c.kind != opWrite && c.kind != opSync {
			c = nil
		}
		p.all = append(p.all, event{at: at, call: c})
		return err
	}
	begun := len(p.all)
	if strings.HasPrefix(text, "<... ") {
		_, tail, _ := strings.Cut(text, " resumed>")
		before := p.open[thread]
		if before == nil {
			return fmt.Errorf("a call goes on that never began")
		}
		delete(p.open, thread)
		text, begun = before.text+tail, before.begun
	} else {
		p.all = append(p.all, event{at: at})
	}
	c, err := p.call(text)
	if err != nil {
		return err
	}
	p.all[begun].call = c
	p.all = append(p.all, event{at: at, end: true, call: c})
	return nil
}

// descriptor is how -y shows one: 9</path>.
var descriptor = regexp.MustCompile(`^(-?\d+|AT_FDCWD)<(.*)>$`)

// call reads a whole call; nil when it failed or is not below the root.
func (p *parser) call(text string) (*call, error) {
	name, rest, _ := strings.Cut(text, "(")
	i := strings.LastIndex(rest, ") ")
	if i < 0 {
		return nil, nil // exit in the middle of a call
	}
	args, result := strings.Split(rest[:i], ", "), strings.TrimLeft(rest[i+2:], " ")
	result = strings.TrimPrefix(result, "= ")
	if strings.HasPrefix(result, "-1 ") || strings.HasPrefix(result, "?") {
		return nil, nil
	}
	c, err := p.shape(name, args, result)
	if err != nil || c == nil || !p.below(c.path) && !p.below(c.to) {
		return nil, err
	}
	return c, nil
}

func (p *parser) shape(name string, args []string, result string) (*call, error) {
	switch name {
	case "openat":
		return openCall(args, result)
	case "mkdirat":
		return &call{kind: opMkdir, path: at(args[0], args[1])}, nil
	case "write", "pwrite64":
		fd, path := fdOf(args[0])
		c := &call{kind: opWrite, path: path, fd: fd, off: -1}
		if !p.below(path) {
			return nil, nil
		}
		c.data = unquote(args[1])
		n := number(result)
		if n > 0 && n < int64(len(c.data)) {
			c.data = c.data[:n]
		}
		if name == "pwrite64" {
			c.off = number(args[3])
		}
		return c, nil
	case "fsync", "fdatasync":
		_, path := fdOf(args[0])
		return &call{kind: opSync, path: path}, nil
	case "ftruncate":
		_, path := fdOf(args[0])
		return &call{kind: opTruncate, path: path, size: number(args[1])}, nil
	case "fallocate":
		_, path := fdOf(args[0])
		if args[1] != "0" && p.below(path) {
			return nil, fmt.Errorf("fallocate with mode %s is not understood", args[1])
		}
		return &call{kind: opAllocate, path: path, size: number(args[2]) + number(args[3])}, nil
	case "renameat", "renameat2":
		return &call{kind: opRename, path: at(args[0], args[1]), to: at(args[2], args[3])}, nil
	case "unlinkat":
		return &call{kind: opRemove, path: at(args[0], args[1])}, nil
	}
	for _, a := range args { // such as copy_file_range
		if _, path := fdOf(a); p.below(path) || p.below(string(unquote(a))) {
			return nil, fmt.Errorf("%s is not understood: %.200s", name, a)
		}
	}
	return nil, nil
}

func openCall(args []string, result string) (*call, error) {
	fd, path := fdOf(result)
	if len(args) < 3 {
		return nil, fmt.Errorf("openat without flags")
	}
	c := &call{kind: opOpen, path: path, fd: fd, size: -1}
	if strings.Contains(args[2], "O_CREAT") {
		c.kind = opCreate
	}
	if strings.Contains(args[2], "O_TRUNC") {
		c.kind, c.size = opCreate, 0
	}
	return c, nil
}

func (p *parser) below(path string) bool {
	return path == p.root || strings.HasPrefix(path, p.root+"/")
}

// at is the path of a name that is relative to a directory.
func at(dir, name string) string {
	path := string(unquote(name))
	if !filepath.IsAbs(path) {
		_, base := fdOf(dir)
		path = filepath.Join(base, path)
	}
	return filepath.Clean(path)
}

func fdOf(s string) (fd int, path string) {
	m := descriptor.FindStringSubmatch(s)
	if m == nil {
		return -1, ""
	}
	fd, _ = strconv.Atoi(m[1])
	return fd, string(unhex(m[2]))
}

func unquote(s string) []byte {
	s = strings.TrimSuffix(s, "...")
	return unhex(strings.Trim(s, `"`))
}

// unhex decodes \x61\x62.
func unhex(s string) []byte {
	out := make([]byte, 0, len(s)/4)
	for len(s) >= 4 && s[0] == '\\' && s[1] == 'x' {
		out = append(out, nibble(s[2])<<4|nibble(s[3]))
		s = s[4:]
	}
	return out
}

func nibble(c byte) byte { return byte(max(0, bytes.IndexByte([]byte("0123456789abcdef"), c))) }

func number(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(s), 0, 64)
	return n
}
