package secure

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/server/secure"
)

// load is clients at work, through connections that stand and through new ones.
type load struct {
	t        *testing.T
	s        *site
	files    *secure.Files
	ctx      context.Context // its end asks the clients to finish what they do
	stop     context.CancelFunc
	workers  sync.WaitGroup
	watchers sync.WaitGroup
	writes   [workers]atomic.Int64 // puts that were acknowledged, by worker
	events   [2]atomic.Int64       // seen by the watchers: a client, kvctl
}

// The workers, each with a key prefix of its own.
const (
	standing = iota // one client for the whole test
	dialing         // a new client for each round
	tool            // kvctl, a process for each put
	workers
)

const lastKey = "load/last"

func startLoad(s *site) *load {
	s.t.Helper()
	files, err := secure.Open(secure.Options{
		CertFile: s.file("certs/root.pem"), KeyFile: s.file("certs/root-key.pem"), TrustedCAFile: s.file("certs/ca.pem"),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	l := &load{t: s.t, s: s, files: files}
	l.ctx, l.stop = context.WithCancel(context.Background())
	s.t.Cleanup(func() { l.stop(); l.workers.Wait() })
	c := l.dial(s.endpoints())
	s.t.Cleanup(func() { c.Close() })
	l.watchers.Go(func() { l.watch(c) })
	l.watchers.Go(l.watchByTool)
	l.worker(standing, func(key string) error { return putAndGet(c, key) })
	l.worker(dialing, func(key string) error {
		one := l.dial([]string{s.endpoints()[l.writes[dialing].Load()%3]})
		defer one.Close()
		return putAndGet(one, key)
	})
	l.worker(tool, l.putByTool)
	return l
}

func (l *load) dial(endpoints []string) *client.Client {
	c, err := client.New(client.Config{Endpoints: endpoints, TLSNow: l.files.Client})
	if err != nil {
		l.t.Error(err)
	}
	return c
}

// worker repeats a request until the load ends; the first that fails fails the
// test.
func (l *load) worker(w int, request func(key string) error) {
	l.workers.Go(func() {
		for l.ctx.Err() == nil {
			n := l.writes[w].Load()
			if err := request(fmt.Sprintf("load/%d/%d", w, n)); err != nil {
				l.t.Errorf("worker %d, request %d: %v", w, n, err)
				return
			}
			l.writes[w].Add(1)
		}
	})
}

func putAndGet(c *client.Client, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), waitMax)
	defer cancel()
	if _, err := c.Put(ctx, key, key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	r, err := c.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != key {
		return fmt.Errorf("get %s: %v", key, r.Kvs)
	}
	return nil
}

func (l *load) putByTool(key string) error {
	if out, err := l.kvctl(context.Background(), "put", key, key).CombinedOutput(); err != nil || string(out) != "OK\n" {
		return fmt.Errorf("kvctl: %w: %s", err, out)
	}
	return nil
}

// kvctl is a call of the tool with the client's files.
func (l *load) kvctl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.s.file("bin/kvctl"), args...)
	cmd.Dir = l.s.dir
	cmd.Env = append(slices.Clone(l.s.env), "ETCDCTL_ENDPOINTS="+strings.Join(l.s.endpoints(), ","), "ETCDCTL_COMMAND_TIMEOUT="+waitMax.String(),
		"ETCDCTL_CACERT=certs/ca.pem", "ETCDCTL_CERT=certs/root.pem", "ETCDCTL_KEY=certs/root-key.pem")
	return cmd
}

// watch counts the events of the load until that of the last key.
func (l *load) watch(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*waitMax)
	defer cancel()
	w := c.Watch(ctx, "load/", client.Prefix(), client.Revision(1))
	for {
		r, err := w.Next()
		if err != nil {
			l.t.Errorf("watch: %v", err)
			return
		}
		for _, e := range r.Events {
			if string(e.Kv.Key) == lastKey {
				return
			}
			l.events[0].Add(1)
		}
	}
}

// goOn waits until every worker has done a few more requests.
func (l *load) goOn() {
	l.t.Helper()
	const requests = 5
	var goals [workers]int64
	for w := range goals {
		goals[w] = l.writes[w].Load() + requests
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(waitMax); ; <-tick.C {
		behind := 0
		for w, goal := range goals {
			if l.writes[w].Load() < goal {
				behind++
			}
		}
		switch {
		case behind == 0:
			return
		case l.t.Failed() || time.Now().After(deadline):
			l.t.Fatalf("the load does not go on: %d workers stand still", behind)
		}
	}
}

// rest ends the workers, each after the request that it is at.
func (l *load) rest() {
	l.stop()
	l.workers.Wait()
	for w := range workers {
		l.t.Logf("worker %d: %d requests", w, l.writes[w].Load())
	}
}

// finish checks that the watchers saw each put once.
func (l *load) finish() {
	l.t.Helper()
	if err := l.putByTool(lastKey); err != nil {
		l.t.Fatal(err)
	}
	l.watchers.Wait()
	total := int64(0)
	for w := range workers {
		total += l.writes[w].Load()
	}
	for w := range l.events {
		if got := l.events[w].Load(); got != total {
			l.t.Errorf("watcher %d saw %d puts of %d", w, got, total)
		}
	}
}

// watchByTool counts as watch does, what one kvctl prints.
func (l *load) watchByTool() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*waitMax)
	defer cancel()
	cmd := l.kvctl(ctx, "watch", "--prefix", "load/", "--rev", "1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Error(err)
		return
	}
	if err := cmd.Start(); err != nil {
		l.t.Error(err)
		return
	}
	defer func() { _ = cmd.Wait() }()
	defer cancel()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() != "PUT" {
			continue
		}
		if lines.Scan(); lines.Text() == lastKey {
			return
		}
		l.events[1].Add(1)
	}
	l.t.Error("kvctl watch ended before the last key")
}

// restart ends a member and starts it again with the arguments that it had.
func (s *site) restart(name string) {
	s.t.Helper()
	if err := syscall.Kill(s.pid(name), syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	// It is nobody's child here: it is gone when its port is free.
	s.run(fmt.Sprintf(`for t in {1..600}; do kill -0 %d 2>/dev/null || break; sleep 0.1; done
mapfile -t args < run/%s.args; bin/kvorum "${args[@]}" &
bin/kvctl --command-timeout 30s --endpoints %s --cacert certs/ca.pem --cert certs/root.pem --key certs/root-key.pem get load/ --limit 1 > /dev/null
`, s.pid(name), name, s.endpoints()[int(name[1]-'1')]))
}

// If this fails, replacing the authority of a cluster costs requests, or the old
// authority stays good for ever.
func TestAuthorityIsReplacedUnderLoad(t *testing.T) {
	s, _ := start(t)
	old := s.readAll("certs/root.pem", "certs/root-key.pem", "certs/ca.pem")
	l := startLoad(s)
	l.goOn()
	for _, step := range commands(t, "../../docs/tls.md", "### Replacing the authority") {
		s.run(step)
		l.goOn()
	}
	l.rest()
	if t.Failed() {
		return
	}
	for _, name := range []string{"m1", "m2", "m3"} {
		s.restart(name)
	}
	l.finish()
	s.refusesTheOld(old)
}

// readAll copies files to memory.
func (s *site) readAll(names ...string) [][]byte {
	s.t.Helper()
	var all [][]byte
	for _, name := range names {
		text, err := os.ReadFile(s.file(name))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

// refusesTheOld: a certificate of the old authority opens nothing, and the new
// one of a member is not from the old authority.
func (s *site) refusesTheOld(old [][]byte) {
	s.t.Helper()
	pair, err := tls.X509KeyPair(old[0], old[1])
	if err != nil {
		s.t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(old[2])
	for _, port := range append(slices.Clone(s.clients), s.peers...) {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: trusted}); err == nil {
			conn.Close()
			s.t.Errorf("%s still shows a certificate of the old authority", address)
		}
		s.refuses(address, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}, "unknown certificate authority") //nolint:gosec // whom we call does not matter here
	}
}
