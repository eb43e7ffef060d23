package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/process"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// If this fails, a leader that was paused (a virtual machine that was moved, a
// stopped process) answers from its past: clients act on data that is no more.
func TestFrozenLeader(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	e := start(t, process.Options{Size: 3})
	j := e.load(r, "f/", 4, 32)
	for round := range rounds(2, 10) {
		j.progress(50)
		old, rest := e.followers()
		before := e.mustPut("epoch", fmt.Sprint("before ", round))
		old.Signal(freeze)
		next := e.leader(old)
		ctx, cancel := e.brief(waitMax)
		a, err := e.at(next).Put(ctx, "epoch", fmt.Sprint("after ", round))
		cancel()
		if err != nil {
			t.Fatalf("put without the frozen leader: %v", err)
		}
		// The questions wait in the old leader's sockets and are the first that
		// it sees when it wakes up.
		answers := e.askOften(old, "epoch", 20)
		pass(t, 200*time.Millisecond)
		old.Signal(thaw)
		for range 20 {
			if got := <-answers; got.err == nil && got.rev < a.Header.Revision {
				t.Errorf("the old leader gave epoch of revision %d (the one before the freeze is %d), after revision %d was acknowledged", got.rev, before, a.Header.Revision)
			}
		}
		e.caughtUp(append(rest, old))
	}
	j.finish()
}

type answer struct {
	rev int64
	err error
}

// askOften asks a member for a key by linearizable reads, all at once, over a
// connection that stands already.
func (e *env) askOften(m *process.Member, key string, times int) <-chan answer {
	out := make(chan answer, times)
	c := e.at(m)
	for range times {
		go func() {
			ctx, cancel := context.WithTimeout(e.ctx, waitMax)
			defer cancel()
			a, err := c.Get(ctx, key)
			if err != nil {
				out <- answer{err: err}
				return
			}
			out <- answer{rev: revisionOf(a.Kvs)}
		}()
	}
	return out
}

func revisionOf(kvs []*mvccpb.KeyValue) int64 {
	if len(kvs) == 0 {
		return 0
	}
	return kvs[0].ModRevision
}

// If this fails, a member that was away for a moment never comes back, or costs
// a copy of the whole database.
func TestFollowerCatchesUpByLog(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3})
	j := e.load(newRand(t), "log/", 4, 32)
	j.progress(50)
	_, followers := e.followers()
	m := followers[0]
	from := mark(m)
	e.avoid(m)
	m.Signal(freeze)
	j.progress(300)
	m.Signal(thaw)
	e.avoid()
	e.caughtUp(followers[:1])
	j.finish()
	if says(m, from, "installing snapshot") {
		t.Error("a snapshot was sent for a few hundred entries")
	}
}

// If this fails, a member that was away for longer than the log reaches back
// never comes back.
func TestFollowerCatchesUpBySnapshot(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 3, Args: smallLog()})
	j := e.load(newRand(t), "snap/", 4, 32)
	j.progress(50)
	for _, how := range []string{"frozen", "killed"} {
		_, followers := e.followers()
		m := followers[0]
		from, received := mark(m), e.metric(m, "etcd_network_snapshot_receive_success")
		e.avoid(m)
		if how == "frozen" {
			m.Signal(freeze)
		} else {
			m.Kill()
			received = 0
		}
		j.progress(1000)
		if how == "frozen" {
			m.Signal(thaw)
		} else {
			e.mustStart(m)
		}
		e.avoid()
		e.waitSays(m, from, "installing snapshot from leader")
		e.caughtUp(followers[:1])
		if now := e.metric(m, "etcd_network_snapshot_receive_success"); now <= received {
			t.Errorf("%s: the member installed a snapshot but counts %v received, %v before", how, now, received)
		}
	}
	j.finish()
}

// smallLog makes members forget their log soon.
func smallLog() []string {
	return []string{"--snapshot-count", "100", "--snapshot-catchup-entries", "50"}
}

// metric is the sum of a metric over its labels.
func (e *env) metric(m *process.Member, name string) float64 {
	e.t.Helper()
	var sum float64
	until(e.t, "metrics of "+m.Name, waitMax, func() error {
		body, err := fetch(m.ClientURL + "/metrics")
		if err != nil {
			return err
		}
		sum = 0
		for _, line := range strings.Split(body, "\n") {
			if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
				continue
			}
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				return err
			}
			sum += v
		}
		return nil
	})
	return sum
}

func fetch(url string) (string, error) {
	c := http.Client{Timeout: 5 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// If this fails, stopping the leader for an upgrade costs clients an election,
// or a write that they were told is done.
func TestTerminateHandsOver(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	e := start(t, process.Options{Size: 3})
	j := e.load(r, "term/", 4, 32)
	worst := time.Duration(0)
	for range rounds(3, 20) {
		j.progress(50)
		old, left := e.followers()
		term := e.mustStatus(old).RaftTerm
		marks := map[*process.Member]int{left[0]: mark(left[0]), left[1]: mark(left[1]), old: mark(old)}
		began := time.Now()
		stopped := make(chan bool, 1)
		go func() { stopped <- old.Terminate() }()
		worst = max(worst, e.electionAfter(began, left, marks))
		next := e.leader(old)
		if now := e.mustStatus(next).RaftTerm; now != term+1 {
			t.Errorf("the term went from %d to %d: leadership was not handed over but lost", term, now)
		}
		if !<-stopped {
			t.Fatalf("%s did not stop:\n%s", old.Name, old.LogTail(20))
		}
		checkCleanEnd(t, old, marks[old])
		e.mustStart(old)
		e.caughtUp([]*process.Member{old})
	}
	j.finish()
	t.Logf("the new leader led %s after SIGTERM at the latest", worst.Round(time.Millisecond))
	if max := 500*time.Millisecond + 500*time.Millisecond; worst > max {
		t.Errorf("handing over took %s, more than %s", worst, max)
	}
}

func checkCleanEnd(t *testing.T, m *process.Member, from int) {
	t.Helper()
	if !says(m, from, "leadership handed over") || !says(m, from, "closed etcd server") {
		t.Errorf("%s did not log a clean end:\n%s", m.Name, m.LogTail(20))
	}
	if end := m.Ended(); end == nil || (end.ExitCode() != 0 && !strings.Contains(end.String(), "terminated")) {
		t.Errorf("%s ended with %v", m.Name, end)
	}
}

// If this fails, other users of the machine can read the data, or an operator's
// changed flags turn a member into another one.
func TestRestartIgnoresInitialFlags(t *testing.T) {
	t.Parallel()
	e := start(t, process.Options{Size: 1})
	m := e.Members[0]
	rev := e.mustPut("stays", "here")
	before := e.mustStatus(m).Header
	info, err := os.Stat(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory has mode %s", info.Mode().Perm())
	}
	m.Terminate()
	m.Args = append(m.Args, "--initial-cluster-token", "other", "--initial-cluster-state", "existing",
		"--initial-cluster", m.Name+"="+m.PeerURL+",more=http://127.0.0.1:1")
	e.mustStart(m)
	after := e.mustStatus(m).Header
	if after.MemberId != before.MemberId || after.ClusterId != before.ClusterId || after.Revision < rev {
		t.Errorf("before the restart: %v, after: %v", before, after)
	}
	a, err := e.client.Get(e.ctx, "stays")
	if err != nil || revisionOf(a.Kvs) != rev {
		t.Errorf("the key is %v, %v", a, err)
	}
}
