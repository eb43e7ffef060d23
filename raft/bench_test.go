package raft

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kvorum/kvorum/raft/wal"
)

// nowhere is the transport of a cluster of one.
type nowhere struct{}

func (nowhere) Send([]*raftpb.Message)       {}
func (nowhere) SendSnapshot(*raftpb.Message) {}

// benchNode is one member on a disk that takes no time; done tells each
// proposer, by its number in the entry, that its entry was applied.
func benchNode(b *testing.B, log Log, proposers int) (*Node, []chan struct{}) {
	n, err := New(Config{
		ID: 1, Log: log, Start: bootstrap(b, 1), Transport: nowhere{}, Snapshots: nowhere{}, Rand: rand.Reader,
	})
	if err != nil {
		b.Fatal(err)
	}
	done := make([]chan struct{}, proposers)
	for i := range done {
		done[i] = make(chan struct{}, 1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = n.Run(ctx)
	}()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case a := <-n.Applies():
				for _, e := range a.Entries {
					if e.Kind == EntryConfChange {
						cc, _ := DecodeConfChange(e.Data)
						n.ApplyConfChange(&cc)
					} else if len(e.Data) > 0 {
						done[int(e.Data[0])<<8|int(e.Data[1])] <- struct{}{}
					}
				}
				n.Applied(a)
			}
		}
	}()
	b.Cleanup(func() {
		cancel()
		<-stopped
	})
	for changes := n.Changes(); n.Leader() == 0; changes = n.Changes() {
		<-changes
	}
	return n, done
}

func benchmarkPropose(b *testing.B, log Log, clients int) {
	n, done := benchNode(b, log, clients)
	ctx := context.Background()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	finished := make(chan struct{})
	for i := range clients {
		go func() {
			data := make([]byte, 256)
			data[0], data[1] = byte(i>>8), byte(i)
			for left.Add(-1) >= 0 {
				if err := n.Propose(ctx, data); err != nil {
					b.Error(err)
				}
				<-done[i]
			}
			finished <- struct{}{}
		}()
	}
	for range clients {
		<-finished
	}
	b.StopTimer()
	switch log := log.(type) {
	case *memLog:
		b.ReportMetric(float64(log.syncCount())/float64(b.N), "syncs/op")
	case *DiskLog:
		b.ReportMetric(float64(log.log.Stats().Syncs)/float64(b.N), "syncs/op")
	}
}

// benchDisk is a log in real files, with a real sync.
func benchDisk(b *testing.B) Log {
	dir := b.TempDir()
	log, err := wal.Create(wal.OS(), filepath.Join(dir, "wal"), []byte("bench"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = log.Close() })
	start := bootstrap(b, 1)
	if err := errors.Join(log.Append(start.HardState, start.Entries), log.Sync()); err != nil {
		b.Fatal(err)
	}
	return NewDiskLog(log, dir, false)
}

func BenchmarkPropose1Client(b *testing.B)     { benchmarkPropose(b, &memLog{discard: true}, 1) }
func BenchmarkPropose64Clients(b *testing.B)   { benchmarkPropose(b, &memLog{discard: true}, 64) }
func BenchmarkPropose1000Clients(b *testing.B) { benchmarkPropose(b, &memLog{discard: true}, 1000) }

func BenchmarkProposeOnDisk1Client(b *testing.B)    { benchmarkPropose(b, benchDisk(b), 1) }
func BenchmarkProposeOnDisk256Clients(b *testing.B) { benchmarkPropose(b, benchDisk(b), 256) }

func BenchmarkReadIndexSolo(b *testing.B) {
	n, done := benchNode(b, &memLog{discard: true}, 1)
	ctx := context.Background()
	if err := n.Propose(ctx, []byte{0, 0}); err != nil {
		b.Fatal(err)
	}
	<-done[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.ReadIndex(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
