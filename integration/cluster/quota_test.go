package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/process"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a database that reached its quota cannot be saved: nobody is
// told, deleting is refused, or the room never comes back.
func TestQuota(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d-nodes", size), func(t *testing.T) {
			t.Parallel()
			e := start(t, process.Options{Size: size, Args: []string{"--quota-backend-bytes", "53248"}})
			e.mustPut("small", "fits in an empty store")
			e.fillToQuota()
			e.alarm(1)
			if _, err := e.client.Grant(e.ctx, 60); !errors.Is(err, client.ErrNoSpace) {
				t.Errorf("lease grant with a full database: %v", err)
			}
			for _, m := range e.Members {
				if body, _ := fetch(m.ClientURL + "/health"); !strings.Contains(body, "NOSPACE") {
					t.Errorf("/health of %s does not name the alarm: %s", m.Name, body)
				}
			}
			e.makeRoom()
			e.alarm(0)
			e.mustPut("again", strings.Repeat("x", 4096))
			e.checkEqual()
		})
	}
}

// fillToQuota puts until that is refused, with the exact error.
func (e *env) fillToQuota() {
	e.t.Helper()
	for i := range 200 {
		_, err := e.client.Put(e.ctx, fmt.Sprintf("fill/%d", i%4), strings.Repeat("x", 4096))
		if err == nil {
			continue
		}
		if !errors.Is(err, client.ErrNoSpace) {
			e.t.Fatalf("put %d failed with %v", i, err)
		}
		e.t.Logf("the quota was reached by put %d of 4 KiB", i+1)
		return
	}
	e.t.Fatal("200 puts of 4 KiB fit into a quota of 53248 bytes")
}

// alarm waits until the members report so many NOSPACE alarms, at least when
// there should be some: each member may raise its own.
func (e *env) alarm(want int) {
	e.t.Helper()
	until(e.t, fmt.Sprintf("%d alarms", want), waitMax, func() error {
		a, err := e.client.Alarms(e.ctx)
		if err != nil {
			return err
		}
		for _, one := range a.Alarms {
			if one.Alarm != pb.AlarmType_NOSPACE {
				e.t.Errorf("an alarm %v is on", one.Alarm)
			}
		}
		if (want == 0) != (len(a.Alarms) == 0) {
			return fmt.Errorf("the alarms are %v", a.Alarms)
		}
		return nil
	})
}

// makeRoom does what the operator's handbook says.
func (e *env) makeRoom() {
	e.t.Helper()
	d, err := e.client.Delete(e.ctx, "fill/", client.Prefix())
	if err != nil {
		e.t.Fatalf("delete with a full database: %v", err)
	}
	if _, err := e.client.Compact(e.ctx, d.Header.Revision, true); err != nil {
		e.t.Fatalf("compact with a full database: %v", err)
	}
	for _, m := range e.Members {
		until(e.t, "defragment "+m.Name, waitMax, func() error { return e.at(m).Defragment(e.ctx, m.Endpoint()) })
	}
	a, err := e.client.Alarms(e.ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, one := range a.Alarms {
		if _, err := e.client.Maintenance.Alarm(e.ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: one.MemberID, Alarm: one.Alarm}); err != nil {
			e.t.Fatalf("disarm: %v", err)
		}
	}
}

// If this fails, a cluster that was full once refuses writes until an operator comes, though there is room again.
func TestQuotaHealsByItself(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d-nodes", size), func(t *testing.T) {
			t.Parallel()
			e := start(t, process.Options{Size: size, Args: []string{"--quota-backend-bytes", "2097152"}})
			full := false
			for i := 0; i < 200 && !full; i++ {
				_, err := e.client.Put(e.ctx, fmt.Sprintf("fill/%d", i), strings.Repeat("x", 32<<10))
				if full = errors.Is(err, client.ErrNoSpace); err != nil && !full {
					t.Fatalf("put %d: %v", i, err)
				}
			}
			if !full {
				t.Fatal("200 puts of 32 KiB fit into a quota of 2 MiB")
			}
			e.alarm(1)
			// Kill one that may have raised an alarm: what it knew is gone, and it must heal all the same.
			e.Members[0].Kill()
			if err := e.Members[0].Start(); err != nil {
				t.Fatal(err)
			}
			var d int64
			until(t, "delete with a full database", waitMax, func() error {
				answer, err := e.client.Delete(e.ctx, "fill/", client.Prefix())
				if err == nil {
					d = answer.Header.Revision
				}
				return err
			})
			if _, err := e.client.Compact(e.ctx, d, true); err != nil {
				t.Fatalf("compact with a full database: %v", err)
			}
			e.alarm(0)
			e.mustPut("again", strings.Repeat("x", 32<<10))
			e.checkEqual()
		})
	}
}
