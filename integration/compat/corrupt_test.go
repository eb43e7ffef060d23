package compat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// The checks of a cluster that runs both must not accuse sound members, whoever leads and asks: writes would stop for nothing.
func TestCorruptionChecksOfMixedCluster(t *testing.T) {
	if *targetFlag != "kvorum" {
		t.Skip("needs Kvorum as the target")
	}
	e := mixedClusterWith(t, []string{
		"--corrupt-check-time", "100ms", "--compact-hash-check-time", "150ms", "--feature-gates", "CompactHashCheck=true,InitialCorruptCheck=true,LeaseCheckpoint=true",
	}, "m3")
	for i, m := range e.cluster.Members {
		e.makeLeader(i)
		deadline := time.Now().Add(3 * time.Second)
		for n := 0; time.Now().Before(deadline); n++ {
			rev := e.put(fmt.Sprint("k", n%7), strings.Repeat("v", n%50))
			if n%10 == 9 {
				if _, err := e.Delete(e.ctx, e.key("k3")); err != nil {
					t.Fatal(err)
				}
				if _, err := e.Compact(e.ctx, rev-5, clientv3.WithCompactPhysical()); err != nil {
					t.Fatal(err)
				}
			}
		}
		alarms, err := e.AlarmList(e.ctx)
		if err != nil || len(alarms.Alarms) > 0 {
			t.Fatalf("under %s: alarms %v, %v", m.Name, alarms, err)
		}
	}
	// A member of either kind asks the others before it serves.
	for _, m := range e.cluster.Members {
		m.Terminate()
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	e.sameHash(e.put("last", "v"))
}
