package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

var errBusy = errors.New("busy")

// simulated is a member that does 1,000 requests a second, in fake time, and is
// asked for factor times as much by callers who wait for a second.
func simulated(factor int, a *admission, lasts time.Duration) (good, refused int) {
	type job struct{ deadline time.Time }
	queue := make(chan job, 1_000_000)
	served := make(chan int)
	go func() {
		n := 0
		for j := range queue {
			time.Sleep(time.Millisecond)
			if a != nil {
				a.end()
			}
			if time.Now().Before(j.deadline) {
				n++
			}
		}
		served <- n
	}()
	began := time.Now()
	for tick := 0; time.Since(began) < lasts; tick++ {
		for range factor {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			deadline, _ := ctx.Deadline()
			if a == nil {
				queue <- job{deadline}
			} else if _, err := a.unaryFor(ctx, func() { queue <- job{deadline} }); err != nil {
				refused++
			}
			cancel()
		}
		if a != nil && tick%int(admissionTick/time.Millisecond) == 0 {
			a.measure(time.Now())
		}
		time.Sleep(time.Millisecond)
	}
	close(queue)
	return <-served, refused
}

// unaryFor is unary for a request that ends elsewhere, with end.
func (a *admission) unaryFor(ctx context.Context, do func()) (any, error) {
	return a.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: pb.KV_Put_FullMethodName}, func(context.Context, any) (any, error) {
		a.underWay.Add(1) // the end that unary counts is not the end
		a.ended.Add(-1)
		do()
		return nil, nil
	})
}

// If this fails, a member that is asked for ten times what it can do answers
// nobody in time, or refuses what it could serve.
func TestAdmissionKeepsGoodput(t *testing.T) {
	const seconds = 10
	for _, c := range []struct {
		factor, goodMin, refusedMax int
	}{{1, 990, 0}, {2, 900, 12_000}, {10, 900, 95_000}} {
		synctest.Test(t, func(t *testing.T) {
			good, refused := simulated(c.factor, newAdmission(7*time.Second, errBusy), seconds*time.Second)
			t.Logf("%d times the load: %d/s in time of 1000/s, %d refused", c.factor, good/seconds, refused)
			if good < c.goodMin*seconds {
				t.Errorf("%d times the load: %d/s in time, want %d", c.factor, good/seconds, c.goodMin)
			}
			if refused > c.refusedMax {
				t.Errorf("%d times the load: %d refused of %d", c.factor, refused, c.factor*1000*seconds)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // or the test above shows nothing
		if good, _ := simulated(10, nil, seconds*time.Second); good > 200*seconds {
			t.Errorf("without admission %d/s are in time", good/seconds)
		}
	})
}

// If this fails, an operator cannot look after a member that is crowded, leases
// end because it is, or a patient caller is sent away.
func TestAdmissionIsForKeysAndTheImpatient(t *testing.T) {
	a := newAdmission(7*time.Second, errBusy)
	a.cost.Store(int64(10 * time.Millisecond))
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	a.underWay.Store(admitAlways - 1)
	if a.refuses(soon) {
		t.Error("refused by a member that is not crowded")
	}
	a.underWay.Store(300) // three seconds of work
	for method, want := range map[string]error{
		pb.KV_Put_FullMethodName: errBusy, pb.KV_Range_FullMethodName: errBusy, pb.KV_Compact_FullMethodName: nil,
		pb.Lease_LeaseKeepAlive_FullMethodName: nil, pb.Lease_LeaseRevoke_FullMethodName: nil, pb.Maintenance_Status_FullMethodName: nil,
		pb.Watch_Watch_FullMethodName: nil, pb.Maintenance_Alarm_FullMethodName: nil,
	} {
		if _, err := a.tap(soon, &tap.Info{FullMethodName: method}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", method, err, want)
		}
	}
	if a.refuses(t.Context()) {
		t.Error("a caller who would wait for seven seconds is refused for three")
	}
}
