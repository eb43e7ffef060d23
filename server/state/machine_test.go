package state

import (
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a member that was sent a snapshot goes on with the users,
// leases and members that it had before.
func TestReloadAfterInstall(t *testing.T) {
	source := &commandSource{random: rand.New(rand.NewSource(1))}
	leader := newMember(t)
	for range 500 {
		leader.applyEntry(source.next(leader.machine))
		leader.store.Publish()
	}
	if err := leader.store.Flush(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(leader.path)
	if err != nil {
		t.Fatal(err)
	}

	follower := newMember(t)
	for range 50 {
		follower.applyEntry(source.next(follower.machine))
		follower.store.Publish()
	}
	received := filepath.Join(filepath.Dir(follower.path), "received")
	if err := os.WriteFile(received, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := follower.store.Install(received); err != nil {
		t.Fatal(err)
	}
	if err := follower.machine.Reload(); err != nil {
		t.Fatal(err)
	}
	if got, want := follower.image()+follower.memory(), leader.image()+leader.memory(); got != want {
		t.Fatalf("follower:\n%s\nleader:\n%s", got, want)
	}
	old := follower.machine.Apply(mvcc.Applied{Index: 400, Term: 1}, []byte{0xff})
	follower.index = leader.index
	next := follower.command(Caller{}, &pb.InternalRaftRequest{AuthStatus: &pb.AuthStatusRequest{}})
	if !old.Skipped || next.Skipped {
		t.Fatalf("entry 400 gave %s, entry %d gave %s", describe(old), follower.index, describe(next))
	}
}

// If this fails, a request that is checked or a list that is read while
// commands are applied crashes the member or sees half of a change. It says
// most under the race detector.
func TestReadersWhileApplying(t *testing.T) {
	m := newMember(t)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for n := range 2 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			source := &commandSource{random: rand.New(rand.NewSource(int64(n)))}
			for {
				select {
				case <-done:
					return
				default:
				}
				c := Caller{User: source.user(), AuthRevision: m.machine.AuthStatus().Revision}
				m.check(c, source.request(int64(m.store.Revision())))
				m.memory()
			}
		}()
	}
	source := &commandSource{random: rand.New(rand.NewSource(9))}
	for range 2000 {
		m.applyEntry(source.next(m.machine))
		m.store.Publish()
	}
	close(done)
	readers.Wait()
}

// If this fails, an entry that an etcd member applies is refused by this one: its client waits in vain, and the members
// part.
func TestFieldsOfAnotherTypeAreIgnored(t *testing.T) {
	data, err := (&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	data = protowire.AppendTag(data, fieldDeleteRange, protowire.BytesType)
	data = protowire.AppendBytes(data, []byte{1<<3 | 2, 1, 'k', 1<<3 | 0, 1}) // the key, and a number where the key should be
	var d decoder
	field, got, err := d.decode(data)
	if err != nil || field != fieldDeleteRange || string(got.DeleteRange.Key) != "k" {
		t.Fatal(field, got, err)
	}
}

// If this fails, putting a key costs every write of the cluster more memory
// than the store itself needs.
func TestDecodingPutAllocatesNothing(t *testing.T) {
	r := &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: 1, Username: "alice", AuthRevision: 7},
		Put:    &pb.PutRequest{Key: []byte("key"), Value: make([]byte, 256)},
	}
	data, err := r.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	var d decoder
	allocations := testing.AllocsPerRun(100, func() {
		field, got, err := d.decode(data)
		if err != nil || field != fieldPut || got.Header.Username != "alice" || len(got.Put.Value) != 256 {
			t.Fatal(field, got, err)
		}
	})
	if allocations != 0 {
		t.Fatalf("%v allocations", allocations)
	}
}
