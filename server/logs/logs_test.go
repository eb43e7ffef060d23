package logs

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// If this fails, tools that read the log of etcd cannot read this one.
func TestLinesAreThoseOfEtcd(t *testing.T) {
	const stamp = `20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z`
	for _, c := range []struct {
		format string
		log    func(*slog.Logger)
		want   string
	}{
		{JSON, func(l *slog.Logger) { l.Info("ready") }, `{"level":"info","ts":"TS","caller":"logs/logs_test.go:\d+","msg":"ready"}`},
		{
			JSON, func(l *slog.Logger) {
				l.With("logger", "raft", "member", 7).Warn(`a <b> "c"`, "took", 1500*time.Microsecond, "error", errors.New("no\nway"))
			},
			`{"level":"warn","ts":"TS","logger":"raft","caller":"logs/logs_test.go:\d+","msg":"a <b> \\"c\\"","member":7,"took":"1.5ms","error":"no\\nway"}`,
		},
		{JSON, func(l *slog.Logger) { l.WithGroup("g").Error("x", "urls", []string{"a"}, "level", 3) }, `{"level":"error","ts":"TS","caller":"logs/logs_test.go:\d+","msg":"x","g":{"urls":\["a"\],"level":3}}`},
		{Console, func(l *slog.Logger) { l.Info("ready") }, "TS\tinfo\tlogs/logs_test.go:\\d+\tready"},
		{
			Console, func(l *slog.Logger) { l.With("logger", "raft").Info("two\nlines", "a", 1) },
			"TS\tinfo\traft\tlogs/logs_test.go:\\d+\ttwo\\\\nlines\t{\"a\":1}",
		},
		{JSON, func(l *slog.Logger) { l.Debug("quiet") }, ""},
	} {
		var out bytes.Buffer
		c.log(newLogger(slog.LevelInfo, c.format, stream{&out}))
		want := ""
		if c.want != "" {
			want = strings.ReplaceAll(c.want, "TS", stamp) + "\n"
		}
		if !regexp.MustCompile("^" + want + "$").MatchString(out.String()) {
			t.Errorf("%s: %q, want %q", c.format, out.String(), want)
		}
		if c.format == JSON && out.Len() > 0 && !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %s", out.String())
		}
	}
}

// If this fails, a log that two goroutines write to has lines mixed up.
func TestLinesAreWhole(t *testing.T) {
	var out bytes.Buffer
	log, done := newLogger(slog.LevelInfo, JSON, stream{&out}), make(chan bool)
	for i := range 8 {
		go func() {
			for j := range 200 {
				log.With("writer", i).Info("line", "n", j)
			}
			done <- true
		}()
	}
	for range 8 {
		<-done
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 8*200 {
		t.Errorf("%d lines", len(lines))
	}
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Fatalf("not JSON: %s", l)
		}
	}
}

// If this fails, options that cannot be meant are taken, or good ones refused.
func TestOptionsAreChecked(t *testing.T) {
	rotation := &Rotation{}
	for _, c := range []struct {
		outputs  []string
		rotation *Rotation
		want     error
	}{
		{[]string{"default"}, nil, nil},
		{[]string{"stderr", "stdout", "a", "b"}, nil, nil},
		{[]string{"default", "a"}, nil, ErrMixedDefault},
		{[]string{"a", ""}, nil, errEmptyOutput},
		{[]string{"a"}, rotation, nil},
		{[]string{"stderr", "a"}, rotation, nil},
		{[]string{"default"}, rotation, ErrRotateOneFile},
		{[]string{"stderr", "systemd/journal"}, rotation, ErrRotateOneFile},
		{[]string{"a", "b"}, rotation, ErrRotateOneFile},
	} {
		if err := (Options{Outputs: c.outputs, Rotation: c.rotation}).Check(); !errors.Is(err, c.want) {
			t.Errorf("%q, rotation %v: %v, want %v", c.outputs, c.rotation, err, c.want)
		}
	}
	for text, want := range map[string]string{
		`{"maxsize": 1, "compress": true}`: "",
		"":                                 "improperly formatted log rotation config",
		"nonsense":                         "improperly formatted log rotation config",
		`{"maxsize": 1} 2`:                 "improperly formatted log rotation config",
		`{"maxsize": "x"}`:                 "invalid log rotation config",
		`{"maxsize": 1.5}`:                 "invalid log rotation config",
		`{"bogus": 1}`:                     `unknown field "bogus"`,
		`{"maxage": -1}`:                   "must not be negative",
	} {
		_, err := ParseRotation(text)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := Open(Options{Outputs: []string{filepath.Join(t.TempDir(), "none", "a")}, Rotation: rotation}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file in a folder that does not exist: %v", err)
	}
}

// If this fails, the log goes to one of the files that were named, or fills the
// disk though it is to be rotated.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	log, err := Open(Options{Format: JSON, Outputs: []string{a, b}})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello")
	for _, name := range []string{a, b} {
		if text, err := os.ReadFile(name); err != nil || !strings.Contains(string(text), "hello") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	rotated := filepath.Join(dir, "r")
	log, err = Open(Options{Format: JSON, Outputs: []string{rotated}, Rotation: &Rotation{MaxSize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		log.Info("fill", "text", strings.Repeat("x", 32<<10))
	}
	names, err := filepath.Glob(filepath.Join(dir, "r*"))
	if err != nil || len(names) != 2 {
		t.Errorf("after 1.3 MB with files of at most 1 MB: %q, %v; want 2 files", names, err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil || info.Size() > 1<<20 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// If this fails, a host with systemd's journal has no log, or one without levels.
func TestJournal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "socket")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	j, err := dialJournal(name, "kvorum")
	if err != nil {
		t.Fatal(err)
	}
	log := newLogger(slog.LevelInfo, JSON, j)
	log.Warn("hello", "n", 1)
	log.Info(strings.Repeat("x", 1<<20))
	for _, want := range []struct {
		priority int
		text     string
	}{{4, `"msg":"hello","n":1}`}, {6, strings.Repeat("x", 1000)}} {
		got := make([]byte, 1<<20)
		if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := socket.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		head := fmt.Sprintf("PRIORITY=%d\nSYSLOG_IDENTIFIER=kvorum\nMESSAGE\n", want.priority)
		message, ok := strings.CutPrefix(string(got[:n]), head)
		if !ok || len(message) < 9 {
			t.Fatalf("%q does not begin with %q", got[:min(n, 100)], head)
		}
		size := binary.LittleEndian.Uint64([]byte(message))
		if int(size) != len(message)-9 || size > journalLineBytesMax || !strings.Contains(message, want.text) {
			t.Errorf("a message of %d bytes says %d and %.100q", len(message), size, message)
		}
	}
	if _, err := dialJournal(name+"-none", ""); err == nil || !strings.Contains(err.Error(), "can't find journal") {
		t.Errorf("without a journal: %v", err)
	}
}

// If this fails, a member under systemd logs without levels, or one whose stderr
// was redirected logs to the journal.
func TestStderrIsJournal(t *testing.T) {
	info, err := os.Stderr.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for text, want := range map[string]bool{fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false, "": false, "x": false} {
		if got := stderrIsJournal(text); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}
