package tcp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/srv/srvtest"
	"github.com/kvorum/kvorum/pki"
)

const testWait = 20 * time.Second

// backend answers each line with its name and the line.
type backend struct {
	name     string
	listener net.Listener
}

func startBackend(t *testing.T, name, address string) *backend {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{name, l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return b
}

func (b *backend) serve(c net.Conn) {
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		fmt.Fprintf(c, "%s %s\n", b.name, lines.Text())
	}
	fmt.Fprintf(c, "%s saw the end\n", b.name)
}

func (b *backend) address() string { return b.listener.Addr().String() }

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// startGateway runs a gateway until the test ends and gives its address.
func startGateway(t *testing.T, delay time.Duration, endpoints ...Endpoint) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Listener: l, Endpoints: endpoints, RetryDelay: delay, Log: silent()})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// ask sends a line over a connection of its own and returns all of the answer.
func ask(t *testing.T, address, line string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, testWait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testWait))
	fmt.Fprintln(c, line)
	_ = c.(*net.TCPConn).CloseWrite()
	text, _ := io.ReadAll(c)
	return string(text)
}

// If this fails, all clients load one member, or a member that is down takes
// clients with it.
func TestConnectionsGoRound(t *testing.T) {
	a, b := startBackend(t, "a", "127.0.0.1:0"), startBackend(t, "b", "127.0.0.1:0")
	gone := startBackend(t, "gone", "127.0.0.1:0")
	_ = gone.listener.Close()
	address := startGateway(t, time.Hour, Endpoint{Address: a.address()}, Endpoint{Address: gone.address()}, Endpoint{Address: b.address()})
	counts := map[string]int{}
	for range 10 {
		answer := ask(t, address, "hello")
		name, _, _ := strings.Cut(answer, " ")
		if answer != name+" hello\n"+name+" saw the end\n" {
			t.Fatalf("answer %q: bytes or the end were lost", answer)
		}
		counts[name]++
	}
	if counts["a"] < 4 || counts["b"] < 4 {
		t.Errorf("connections by member %v, want them shared", counts)
	}
}

// If this fails, a member that came back gets no clients any more, or no client
// is served while all were down for a moment.
func TestEndpointsComeBack(t *testing.T) {
	old := startBackend(t, "old", "127.0.0.1:0")
	home := old.address()
	first := startBackend(t, "first", "127.0.0.1:0")
	address := startGateway(t, 10*time.Millisecond, Endpoint{Address: first.address()}, Endpoint{Address: home, Priority: 1})
	if got := ask(t, address, "x"); !strings.HasPrefix(got, "first") {
		t.Errorf("%q, want the one of the first priority", got)
	}
	_ = first.listener.Close()
	if got := ask(t, address, "x"); !strings.HasPrefix(got, "old") {
		t.Errorf("%q, want the one of the second priority", got)
	}
	_ = old.listener.Close()
	if got := ask(t, address, "x"); got != "" {
		t.Errorf("%q, want to be turned away", got)
	}
	startBackend(t, "back", first.address())
	deadline := time.Now().Add(testWait)
	for !strings.HasPrefix(ask(t, address, "x"), "back") {
		if time.Now().After(deadline) {
			t.Fatal("a member that came back gets no connection")
		}
	}
}

// If this fails, a gateway that is told to stop stays because of open
// connections.
func TestStopCutsConnections(t *testing.T) {
	b := startBackend(t, "b", "127.0.0.1:0")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Listener: l, Endpoints: []Endpoint{{Address: b.address()}}, RetryDelay: time.Hour, Log: silent()})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "x")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}

// If this fails, the gateway forwards to whatever the DNS says, or not to what it
// should.
func TestEndpointsFromRecords(t *testing.T) {
	now := time.Now()
	valid := pki.Validity{From: now.Add(-time.Hour), To: now.Add(time.Hour)}
	ca, err := pki.NewAuthority("ca", valid)
	if err != nil {
		t.Fatal(err)
	}
	paths := pki.Paths{Cert: filepath.Join(t.TempDir(), "ca.pem"), Key: filepath.Join(t.TempDir(), "key.pem")}
	if err := ca.Pair().Write(paths); err != nil {
		t.Fatal(err)
	}
	good, named, bad := startTLS(t, ca, "cluster.test"), startTLS(t, ca, "named.test"), startTLS(t, ca, "evil.test")
	resolver := srvtest.Start(t,
		fmt.Sprintf("_etcd-client-ssl._tcp.cluster.test. 60 IN SRV 1 0 %d good.test.", good),
		fmt.Sprintf("_etcd-client-ssl._tcp.cluster.test. 60 IN SRV 2 0 %d bad.test.", bad),
		fmt.Sprintf("_etcd-client-ssl._tcp.cluster.test. 60 IN SRV 1 0 %d named.test.", named),
		"_etcd-client._tcp.cluster.test. 60 IN SRV 3 0 7 plain.test.", "named.test. 60 IN A 127.0.0.1",
		"good.test. 60 IN A 127.0.0.1", "bad.test. 60 IN A 127.0.0.1")
	find := func(c Config) string {
		c.Domain, c.Resolver = "cluster.test", resolver
		all, err := c.find(t.Context(), silent())
		if err != nil {
			return err.Error()
		}
		var texts []string
		for _, e := range all {
			texts = append(texts, fmt.Sprintf("%s:%d", e.Address, e.Priority))
		}
		slices.Sort(texts) // equal priorities come in any order
		return strings.Join(texts, " ")
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{TrustedCAFile: paths.Cert}, fmt.Sprintf("good.test:%d:1 named.test:%d:1", good, named)},
		{Config{}, "--discovery-srv: nothing that the records of cluster.test name can be trusted"},
		{Config{InsecureSRV: true}, fmt.Sprintf("bad.test:%d:2 good.test:%d:1 named.test:%d:1 plain.test:7:3", bad, good, named)},
		{Config{TrustedCAFile: "/nowhere"}, "--trusted-ca-file: open /nowhere: no such file or directory"},
	} {
		if got := find(c.config); got != c.want {
			t.Errorf("%+v: %s, want %s", c.config, got, c.want)
		}
	}
	plain := Config{Endpoints: []string{"http://h:1", "https://h:2/", "h:3"}}
	if all, err := plain.find(t.Context(), silent()); err != nil || fmt.Sprint(all) != "[{h:1 0} {h:2 0} {h:3 0}]" {
		t.Errorf("%v, %v", all, err)
	}
	plain.Endpoints = []string{"h"}
	if _, err := plain.find(t.Context(), silent()); err == nil || !strings.Contains(err.Error(), `"h" is not host:port`) {
		t.Errorf("an endpoint without a port: %v", err)
	}
}

// If this fails, a start script written for etcd's gateway does not start this
// one, or a mistake in it goes unnoticed.
func TestFlags(t *testing.T) {
	var out, failed strings.Builder
	if code := Main("etcd gateway start", []string{"--help"}, &out, &failed); code != 0 {
		t.Errorf("--help exits with %d", code)
	}
	for _, name := range []string{"listen-addr", "endpoints", "discovery-srv", "discovery-srv-name", "insecure-discovery", "trusted-ca-file", "retry-delay"} {
		if !strings.Contains(out.String(), "  -"+name) {
			t.Errorf("--%s is not defined", name)
		}
	}
	for args, want := range map[string]string{
		"--bogus": "Error: unknown flag: --bogus", "--retry-delay=x": "invalid value", "start": `"start" is not a flag`,
		"--retry-delay=0": "--retry-delay must be >0", "--endpoints=": "no endpoint given", "--listen-addr=nowhere:x": "--listen-addr",
	} {
		failed.Reset()
		if code := Main("etcd gateway start", []string{args}, io.Discard, &failed); code != 1 || !strings.Contains(failed.String(), want) {
			t.Errorf("%s: code %d, %q; want %q", args, code, failed.String(), want)
		}
	}
}
