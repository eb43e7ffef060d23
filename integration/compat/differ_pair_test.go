package compat

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kvorum/kvorum/integration/compat/process"
)

// pair is an etcd and a Kvorum of one member each, started alike: same name, same advertised URLs and same token, hence
// the same member and cluster ids, so that what they answer can be compared nearly as it is.
type pair struct {
	etcd, kvorum *player
	t            *testing.T
	args         []string
	dir          string
}

// pairArgs make a pair cheap: nothing here survives the test, and a password costs as little as bcrypt allows.
var pairArgs = []string{
	"--unsafe-no-fsync", "--bcrypt-cost", "4", "--log-level", "info",
	"--advertise-client-urls", "http://127.0.0.1:7002",
}

// newPair starts a pair that ends with the test, or earlier with stop.
func newPair(t *testing.T, args ...string) *pair {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "pair")
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, args: args, dir: dir}
	binaries := map[string]string{"etcd": etcdBinary(t), "kvorum": kvorumBinary(t)}
	var group sync.WaitGroup
	var failures [2]error
	group.Go(func() { p.etcd, failures[0] = newPlayer("etcd", binaries["etcd"], dir, args) })
	group.Go(func() { p.kvorum, failures[1] = newPlayer("kvorum", binaries["kvorum"], dir, args) })
	group.Wait()
	for _, err := range failures {
		if err != nil {
			p.stop()
			t.Fatal(err)
		}
	}
	t.Cleanup(p.stop)
	p.waitVersion()
	return p
}

// waitVersion waits until both have the cluster version, which is decided just after the start.
func (p *pair) waitVersion() {
	p.t.Helper()
	status := step{method: maintenance("Status"), at: 1}
	for _, player := range p.both() {
		if !poll(stepMax, func() bool { return strings.Contains(player.play(status, 1), `"3.7.0"`) }) {
			p.t.Fatalf("%s has no storage version 3.7.0", player.name)
		}
	}
}

// again is a new pair started as this one was.
func (p *pair) again() *pair { return newPair(p.t, p.args...) }

// stop ends both servers; it may be called twice.
func (p *pair) stop() {
	for _, player := range p.both() {
		if player != nil {
			player.stop()
		}
	}
	_ = os.RemoveAll(p.dir)
}

func (p *pair) both() [2]*player { return [2]*player{p.etcd, p.kvorum} }

// each does something with both servers at once.
func (p *pair) each(do func(*player)) {
	var group sync.WaitGroup
	for _, player := range p.both() {
		group.Go(func() { do(player) })
	}
	group.Wait()
}

// player is one server of a pair and what the harness knows of it.
type player struct {
	name    string
	cluster *process.Cluster
	conn    *grpc.ClientConn
	ctx     context.Context
	cancel  context.CancelFunc
	// tokens are the users' last tokens. ids are those that the server has chosen.
	tokens map[string]string
	ids    idTable
	tapes  map[int]*tape
	// revision is the highest that the server has told.
	revision int64
}

func newPlayer(name, binary, dir string, args []string) (*player, error) {
	cluster, err := process.Start(process.Options{
		Binary: binary, Size: 1, Dir: filepath.Join(dir, name), Args: append(append([]string{}, pairArgs...), args...),
		Advertise: func(string, string) (string, error) { return "http://127.0.0.1:7001", nil },
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+cluster.Members[0].Endpoint(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		cluster.Stop()
		return nil, err
	}
	p := &player{name: name, cluster: cluster, conn: conn, tokens: map[string]string{}, tapes: map[int]*tape{}, revision: 1}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

func (p *player) stop() {
	p.cancel()
	_ = p.conn.Close()
	p.cluster.Stop()
}

// endpoint is the client address, host:port.
func (p *player) endpoint() string { return p.cluster.Members[0].Endpoint() }

// rawCodec sends and receives messages as bytes, so that malformed ones can be sent too.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (rawCodec) Name() string { return "proto" }

// stepMax bounds one request; a server that does not answer it differs from one that does.
const stepMax = 10 * time.Second
