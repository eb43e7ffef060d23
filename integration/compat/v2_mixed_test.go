package compat

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// v2Put writes a v2 key through a member and gives the status and what is wrong, if anything is.
func (e *env) v2Put(member int, path string) (status int, code int, cause string) {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.ctx, http.MethodPut, e.cluster.Members[member].ClientURL+"/v2/keys"+path, strings.NewReader("value=1"))
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer answer.Body.Close()
	var body struct {
		ErrorCode int
		Cause     string
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		e.t.Fatal(err)
	}
	return answer.StatusCode, body.ErrorCode, body.Cause
}

// A v2 command in the log would stop an etcd member: while there is one they must be refused, and no longer once it is
// replaced.
func TestMixedClusterRefusesV2Writes(t *testing.T) {
	if *targetFlag != "kvorum" {
		t.Skip("needs Kvorum as the target")
	}
	e := mixedCluster(t, "m3")
	for member := range 2 {
		status, code, cause := e.v2Put(member, "/a")
		if status != http.StatusInternalServerError || code != 300 || !strings.Contains(cause, "every member to be Kvorum") || !strings.Contains(cause, "(m3) is not") {
			t.Errorf("write through m%d: status %d, code %d, cause %q", member+1, status, code, cause)
		}
	}
	e.sameHash(e.put("still", "alive"))

	last := e.cluster.Members[2]
	last.Terminate()
	last.Binary = e.cluster.Members[0].Binary
	if err := last.Start(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for member := range 2 { // each has to hear it
		for deadline := time.Now().Add(waitMax); ; <-tick.C {
			status, code, cause := e.v2Put(member, "/a")
			if status < 300 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("write among Kvorum alone through m%d: status %d, code %d, cause %q", member+1, status, code, cause)
			}
		}
	}
	// What is down has said before that it is Kvorum: it holds nobody up.
	last.Kill()
	for member := range 2 {
		if status, code, cause := e.v2Put(member, "/b"); status >= 300 && code == 300 && strings.Contains(cause, "Kvorum") {
			t.Errorf("write through m%d with m3 down: status %d, code %d, cause %q", member+1, status, code, cause)
		}
	}
}
