package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// waitFor polls until the condition holds.
func (m *testMember) waitFor(what string, holds func() bool) {
	m.t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for until := time.Now().Add(testWait); !holds(); <-look.C {
		if time.Now().After(until) {
			m.t.Fatalf("there was no %s within %v", what, testWait)
		}
	}
}

// fill puts n keys of the size; it stops at the first that is refused and returns its error.
func (m *testMember) fill(n, size int) error {
	for i := range n {
		r := &pb.PutRequest{Key: fmt.Appendf(nil, "fill/%d", i), Value: []byte(strings.Repeat("x", size))}
		if _, err := pb.NewKVClient(m.conn).Put(m.ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// deleteAndCompact removes what fill has put.
func (m *testMember) deleteAndCompact() {
	m.t.Helper()
	kv := pb.NewKVClient(m.conn)
	d := must[*pb.DeleteRangeResponse](m.t)(kv.DeleteRange(m.ctx, &pb.DeleteRangeRequest{Key: []byte("fill/"), RangeEnd: []byte("fill0")}))
	must[*pb.CompactionResponse](m.t)(kv.Compact(m.ctx, &pb.CompactionRequest{Revision: d.Header.Revision, Physical: true}))
}

func (m *testMember) fillToQuota() {
	m.t.Helper()
	if err := m.fill(400, 16<<10); status.Code(err) != codes.ResourceExhausted {
		m.t.Fatalf("400 puts of 16 KiB into a quota of 2 MiB: %v", err)
	}
	m.waitFor("space alarm", func() bool { return m.machine.HasAlarm(pb.AlarmType_NOSPACE) })
}

// If this fails, a cluster that was full once refuses writes until somebody notices.
func TestQuotaHealsAfterDeletesAndCompaction(t *testing.T) {
	m := startMember(t, func(c *Config) { c.QuotaBackendBytes = 2 << 20 })
	m.fillToQuota()
	m.deleteAndCompact()
	m.waitFor("end of the alarm", func() bool { return !m.machine.HasAlarm(pb.AlarmType_NOSPACE) })
	if err := m.fill(40, 16<<10); err != nil {
		t.Errorf("put after the alarm ended, without a defragmentation: %v", err)
	}
	if m.machine.HasAlarm(pb.AlarmType_NOSPACE) {
		t.Error("the alarm came back at once")
	}
}

// If this fails, --self-heal-quota=false does not give what etcd does: the file counts, and the alarm stays.
func TestQuotaAsEtcdHasIt(t *testing.T) {
	m := startMember(t, func(c *Config) { c.QuotaBackendBytes, c.HealQuota, c.DefragFreePercent = 2<<20, false, 0 })
	m.fillToQuota()
	m.deleteAndCompact()
	if _, inUse := m.storeSizes(); inUse > 1<<18 {
		t.Fatalf("%d bytes are in use", inUse)
	}
	if m.CheckQuota(1<<20-1<<18) == nil {
		t.Error("the free pages of the file do not count")
	}
	if !m.machine.HasAlarm(pb.AlarmType_NOSPACE) {
		t.Error("the alarm is gone")
	}
}

// If this fails, an alarm that an operator has raised goes away by itself, or one stays after a restart.
func TestHealerLeavesOthersAlarms(t *testing.T) {
	allocated, inUse, mine, disarmed := int64(100), int64(100), true, 0
	var failure error
	h := &healer{
		quota: 1000, sizes: func() (int64, int64) { return allocated, inUse }, mine: func() bool { return mine },
		disarm: func(context.Context) error { disarmed++; return failure }, log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if h.look(t.Context()); disarmed != 0 {
		t.Error("a store that never was full has taken the operator's alarm back")
	}
	allocated, inUse = 1000, 950
	if h.look(t.Context()); disarmed != 0 {
		t.Error("the alarm was taken back without room")
	}
	inUse, failure = 900, errors.New("no leader")
	h.look(t.Context())
	failure = nil
	if h.look(t.Context()); disarmed != 2 {
		t.Errorf("%d tries, want another after one that failed", disarmed)
	}
	allocated, mine = 100, false
	h.wasFull.Store(true)
	if h.look(t.Context()); disarmed != 2 {
		t.Error("an alarm of another member was taken back")
	}
}
