package ctl

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

const readyLine = "ready to serve client requests"

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
		if _, err := os.Stat("../cmd/kvorum"); err != nil {
			t.Skip("no server: cmd/kvorum does not exist and KVORUM_TEST_ENDPOINT is not set")
		}
		binary = filepath.Join(t.TempDir(), "kvorum")
		if out, err := exec.Command("go", "build", "-o", binary, "../cmd/kvorum").CombinedOutput(); err != nil {
			t.Fatalf("build server: %v\n%s", err, out)
		}
	}
	var auth atomic.Bool // whether the servers, which are all alike, have users and roles
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
			has, err := hasAuth(endpoint)
			auth.Store(has)
			return err
		},
		Condition: func(name string) (bool, error) {
			if name == "auth" {
				return auth.Load(), nil
			}
			if name == "own" { // the script may change what others would notice
				return shared == "" || os.Getenv("KVORUM_TEST_ALONE") != "", nil
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
	})
}

// hasAuth asks a server whether it has the Auth service.
func hasAuth(endpoint string) (bool, error) {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = c.Auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	if status.Code(err) == codes.Unimplemented {
		return false, nil
	}
	return true, err
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}
