package bench

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// tool is a control tool with nothing but the flags that bench takes from it.
func tool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "kvctl", SilenceErrors: true}
	f := root.PersistentFlags()
	f.StringSlice("endpoints", []string{"127.0.0.1:2379"}, "")
	f.StringP("write-out", "w", "simple", "")
	f.String("user", "", "")
	f.String("password", "", "")
	root.AddCommand(Command())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"bench"}, args...))
	err := root.Execute()
	return out.String(), err
}

// report runs a load with -w json.
func report(t *testing.T, args ...string) Report {
	t.Helper()
	out, err := tool(t, append(args, "-w", "json")...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	var r Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v printed %q: %v", args, out, err)
	}
	return r
}

// A load that does not send what it says measures something else.
func TestLoadsSendWhatTheySay(t *testing.T) {
	server, address := startFake(t)
	at := "--endpoints=" + address
	if r := report(t, "put", at, "--total=200", "--clients=10", "--conns=3", "--key-size=30", "--val-size=77"); r.Operations != 200 || server.puts != 200 {
		t.Errorf("put: %d operations, the server saw %d", r.Operations, server.puts)
	}
	for key, value := range server.values {
		if len(key) != 30 || len(value) != 77 || !strings.HasPrefix(key, "bench/") {
			t.Errorf("put key %q with %d bytes", key, len(value))
		}
	}
	if r := report(t, "range", at, "--total=50", "--key-space-size=250", "--prefix=r/"); r.Operations != 50 || r.Items != 50 {
		t.Errorf("range: %d operations found %d keys", r.Operations, r.Items)
	}
	server.ranges = nil
	if r := report(t, "range", at, "--total=5", "--list", "--limit=20", "--serializable", "--prefix=r/", "--key-space-size=250"); r.Items != 100 {
		t.Errorf("list: %d keys, want 100", r.Items)
	}
	if got := server.ranges[0]; string(got.Key) != "r/" || string(got.RangeEnd) != "r0" || !got.Serializable || got.Limit != 20 {
		t.Errorf("list asked for %v", got)
	}
	server.txns = nil
	if r := report(t, "txn", at, "--total=9", "--txn-puts=3", "--txn-ranges=2", "--txn-compares=4", "--key-space-size=1"); r.Items != 45 {
		t.Errorf("txn: %d answers, want 45", r.Items)
	}
	distinct := map[string]bool{}
	for _, op := range server.txns[0].Success[:3] {
		distinct[string(op.GetRequestPut().Key)] = true
	}
	if len(server.txns[0].Compare) != 4 || len(distinct) != 3 {
		t.Errorf("txn: %v", server.txns[0])
	}
	r := report(t, "mixed", at, "--total=1000", "--read-ratio=0.7", "--clients=5")
	if len(r.Parts) != 2 || r.Parts[0].Operations != 700 || r.Parts[1].Operations != 300 {
		t.Errorf("mixed: %+v", r.Parts)
	}
}

// Lost or doubled events in the count would hide a server that loses events.
func TestWatchCountsEveryEvent(t *testing.T) {
	_, address := startFake(t)
	at := "--endpoints=" + address
	r := report(t, "watch", at, "--total=40", "--clients=4", "--watchers=30", "--streams=6", "--key-space-size=3")
	if r.Operations != 400 || r.Latency.P50 <= 0 {
		t.Errorf("%d events of 40 puts to 10 watchers each; p50 %v", r.Operations, r.Latency.P50)
	}
	if r := report(t, "watch-latency", at, "--total=20", "--rate=500", "--prefix=w/"); r.Operations != 20 {
		t.Errorf("watch-latency: %d events of 20", r.Operations)
	}
}

// Leases that the tool leaves behind would pile up in the cluster.
func TestLeaseKeepAlive(t *testing.T) {
	server, address := startFake(t)
	r := report(t, "lease-keepalive", "--endpoints="+address, "--total=300", "--clients=4", "--leases=10")
	if r.Operations != 300 || server.renewals != 300 || len(server.leases) != 10 {
		t.Errorf("%d operations, %d renewals of %d leases", r.Operations, server.renewals, len(server.leases))
	}
	for id, alive := range server.leases {
		if alive {
			t.Errorf("lease %d was left behind", id)
		}
	}
}

// Failed calls counted as answered ones would make a broken server look fast.
func TestFailuresAreCounted(t *testing.T) {
	server, address := startFake(t)
	server.refuse = 4
	page := filepath.Join(t.TempDir(), "page.html")
	r := report(t, "put", "--endpoints="+address, "--total=40", "--html="+page)
	if r.Operations != 30 || r.Failed() != 10 {
		t.Errorf("%d answered, %d failed; want 30 and 10", r.Operations, r.Failed())
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "<b>up</b>") || !strings.Contains(string(text), "&lt;b&gt;up") {
		t.Error("the error's text is not escaped on the page")
	}
	server.refuse = 1
	if out, err := tool(t, "put", "--endpoints="+address, "--total=3"); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("when all fail: %v, printed %s", err, out)
	}
}

// A cluster with users must be measured as the user.
func TestUser(t *testing.T) {
	server, address := startFake(t)
	report(t, "put", "--endpoints="+address, "--total=5", "--user=ann:secret")
	if len(server.tokens) != 1 || !server.tokens["ann/secret"] {
		t.Errorf("tokens %v", server.tokens)
	}
}

// Spreadsheets and people read these: a shifted column is a wrong figure.
func TestFormats(t *testing.T) {
	_, address := startFake(t)
	out, err := tool(t, "put", "--endpoints="+address, "--total=50", "-w", "csv")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) != 2 || rows[0][8] != "operations" || rows[1][8] != "50" || rows[1][0] != "put" {
		t.Errorf("csv %v, %v", rows, err)
	}
	out, err = tool(t, "put", "--endpoints="+address, "--total=50")
	if err != nil || !strings.Contains(out, "operations") || strings.Contains(out, "\x1b") {
		t.Errorf("table %q, %v", out, err)
	}
	if _, err := tool(t, "put", "--endpoints="+address, "-w", "fields"); err == nil {
		t.Error("an unknown format was taken")
	}
}

// A comparison whose sides are swapped would praise the slower one.
func TestCompare(t *testing.T) {
	a, addressA := startFake(t)
	b, addressB := startFake(t)
	page := filepath.Join(t.TempDir(), "page.html")
	out, err := tool(t, "put", "--endpoints="+addressA, "--compare="+addressB, "--rounds=3", "--total=20", "-w", "json", "--html="+page)
	if err != nil {
		t.Fatal(err)
	}
	var c Comparison
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.A) != 3 || len(c.B) != 3 || c.A[0].Endpoints[0] != addressA || a.puts != 60 || b.puts != 60 {
		t.Errorf("rounds %d and %d, puts %d and %d", len(c.A), len(c.B), a.puts, b.puts)
	}
	text, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(text), "B: "+addressB) || strings.Count(string(text), "<polyline class=\"s1\" points") < 3 {
		t.Errorf("page: %v", err)
	}
	out, err = tool(t, "put", "--endpoints="+addressA, "--compare="+addressB, "--rounds=1", "--total=20")
	if err != nil || !strings.Contains(out, "B ÷ A") {
		t.Errorf("table %q, %v", out, err)
	}
}

// Each mistake must be named by its flag, before any load starts.
func TestMistakes(t *testing.T) {
	for flag, args := range map[string][]string{
		"--clients": {"put", "--clients=0"}, "--total": {"put", "--total=0"}, "--key-size": {"put", "--key-size=4"},
		"--key-space-size": {"put", "--key-space-size=0"}, "--read-ratio": {"mixed", "--read-ratio=2"},
		"--txn-puts": {"txn", "--txn-puts=0", "--txn-ranges=0"}, "--streams": {"watch", "--streams=200"},
		"--leases": {"lease-keepalive", "--clients=200"}, "--rounds": {"put", "--compare=x:1", "--rounds=0"},
		"--watchers": {"watch", "--key-space-size=101"},
	} {
		if out, err := tool(t, args...); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v: error %v, printed %q, want one that names %s", args, err, out, flag)
		}
	}
}
