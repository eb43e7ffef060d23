package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/logs"
)

// testWait bounds every wait of a test.
const testWait = 30 * time.Second

// testMember is a member in this process, on loopback, with its data in a
// folder of the test.
type testMember struct {
	*Server
	t    testing.TB
	ctx  context.Context
	conn *grpc.ClientConn
	stop func()
}

// startMember starts a member that ends with the test.
func startMember(t testing.TB, change func(*Config)) *testMember {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DataDir, cfg.UnsafeNoFsync, cfg.BcryptCost = t.TempDir(), true, 4
	cfg.ListenPeerURLs, cfg.ListenClientURLs = mustURLs("http://127.0.0.1:0"), mustURLs("http://127.0.0.1:0")
	cfg.HeartbeatMillis, cfg.ElectionMillis = 20, 200
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*testWait)
	log := slog.New(slog.NewJSONHandler(io.Discard, nil))
	if cfg.LogOutputs[0] != logs.Default {
		log = must[*slog.Logger](t)(cfg.Logger())
	}
	s, err := New(ctx, cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	m := &testMember{Server: s, t: t, ctx: ctx}
	runCtx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(runCtx) }()
	m.conn, err = grpc.NewClient(s.clientListeners[0].Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	m.stop = func() {
		m.conn.Close()
		stop()
		if err := <-done; err != nil {
			t.Errorf("member ended with %v", err)
		}
		done <- nil
	}
	t.Cleanup(func() { m.stop(); cancel() })
	return m
}

// as is a context with the token of a fresh login.
func (m *testMember) as(user, password string) context.Context {
	m.t.Helper()
	r, err := pb.NewAuthClient(m.conn).Authenticate(m.ctx, &pb.AuthenticateRequest{Name: user, Password: password})
	if err != nil {
		m.t.Fatalf("log in as %s: %v", user, err)
	}
	return withToken(m.ctx, r.Token)
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "token", token)
}

// must fails the test when a step of its preparation fails.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// writeSecret writes a secret for signing tokens and returns the file's name.
func writeSecret(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte("a secret that nobody knows"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// findInFiles fails if any file of the member's data holds the text.
func (m *testMember) findInFiles(text string) error {
	return filepath.WalkDir(m.cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil && bytes.Contains(content, []byte(text)) {
			err = fmt.Errorf("%s holds %q", path, text)
		}
		return err
	})
}
