package ctl

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	"github.com/rogpeppe/go-internal/testscript"
)

const (
	readyLine     = "ready to serve client requests"
	eventuallyMax = 30 * time.Second
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kvctl":   func() { os.Exit(Main(OSConfig("test", nil))) },
		"etcdctl": func() { os.Exit(Main(OSConfig("test", nil))) },
	})
}

// If this fails, the tool does not do what its user typed.
//
// Each script gets a server of its own, built from ../cmd/kvorum. With
// KVORUM_TEST_ENDPOINT=host:port all use that server instead; KVORUM_TEST_ALONE=1
// says that nobody else does.
func TestScripts(t *testing.T) {
	shared := os.Getenv("KVORUM_TEST_ENDPOINT")
	binary := ""
	if shared == "" {
		binary = filepath.Join(t.TempDir(), "kvorum")
		if out, err := exec.Command("go", "build", "-o", binary, "../cmd/kvorum").CombinedOutput(); err != nil {
			t.Fatalf("build server: %v\n%s", err, out)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			endpoint := shared
			if endpoint == "" {
				var err error
				if endpoint, err = startServer(e, binary); err != nil {
					return err
				}
			}
			e.Setenv("ETCDCTL_ENDPOINTS", endpoint)
			e.Setenv("ENDPOINT", endpoint)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"eventually": eventually},
		Condition: func(name string) (bool, error) {
			if name == "own" { // the script may change what others would notice
				return shared == "" || os.Getenv("KVORUM_TEST_ALONE") != "", nil
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
	})
}

// eventually repeats a shell command until it succeeds.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: eventually 'command'")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(eventuallyMax); ; <-tick.C {
		err := ts.Exec("sh", "-c", args[0])
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s: %v within %s", args[0], err, eventuallyMax)
		}
	}
}

// startServer starts a server for one script and stops it after.
func startServer(e *testscript.Env, binary string) (endpoint string, err error) {
	client, err := freeAddress()
	if err != nil {
		return "", err
	}
	peer, err := freeAddress()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(binary, "--name", "m1", "--data-dir", filepath.Join(e.WorkDir, "data"),
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "m1=http://"+peer)
	logs, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	e.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	var said strings.Builder
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		if strings.Contains(lines.Text(), readyLine) {
			go func() { _, _ = io.Copy(io.Discard, logs) }()
			return client, nil
		}
		said.WriteString(lines.Text() + "\n")
	}
	return "", fmt.Errorf("the server ended before it was ready:\n%s", said.String())
}

func freeAddress() (string, error) {
	ports, err := process.FreePorts(1)
	if err != nil {
		return "", err
	}
	return process.Address(ports[0]), nil
}
