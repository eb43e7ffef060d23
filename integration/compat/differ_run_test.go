package compat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// difference is a step that the two servers answered differently.
type difference struct {
	step         step
	etcd, kvorum string
}

// String shows the step and the lines that differ.
func (d *difference) String() string {
	return fmt.Sprintf("%s\n%s", d.step, diffLines(d.etcd, d.kvorum))
}

// diffLines shows what only etcd says (-) and what only Kvorum says (+), with the equal lines before and after left out.
func diffLines(etcd, kvorum string) string {
	a, b := strings.Split(etcd, "\n"), strings.Split(kvorum, "\n")
	from := 0
	for from < min(len(a), len(b)) && a[from] == b[from] {
		from++
	}
	a, b = a[from:], b[from:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	var out strings.Builder
	fmt.Fprintf(&out, "  from line %d:\n", from+1)
	writeLines(&out, "-", a)
	writeLines(&out, "+", b)
	return out.String()
}

func writeLines(out *strings.Builder, sign string, lines []string) {
	const linesMax = 30
	for _, line := range lines[:min(linesMax, len(lines))] {
		fmt.Fprintf(out, "  %s %.600s\n", sign, line)
	}
	if len(lines) > linesMax {
		fmt.Fprintf(out, "  %s … %d more lines\n", sign, len(lines)-linesMax)
	}
}

// accepted are the differences that should stay, each with its reason.
var accepted = []struct {
	reason string
	match  func(d *difference) bool
}{
	{
		"docs/adr/0002: etcd hashes before it compacts and answers HashKV of that very revision from memory, with the " +
			"compact revision of before, and even after a later compaction; so it does for the newest revision, asked for " +
			"as 0, once revision 0 was compacted",
		func(d *difference) bool {
			return d.step.method == maintenance("HashKV") && remembered(d.etcd, d.kvorum)
		},
	},
	{
		"etcd takes a caller without a name for the user without a name, who may see himself",
		func(d *difference) bool {
			r := &pb.AuthUserGetRequest{}
			return d.step.method == users("UserGet") && proto.Unmarshal(d.step.request, r) == nil && r.Name == "" &&
				strings.Contains(d.etcd, "user name not found") && strings.Contains(d.kvorum, "user name is empty")
		},
	},
	{
		"etcd sorts each chunk of a RangeStream by the target when no order is given, and goes on behind the chunk's last " +
			"key: with more than ten keys some come twice and others never; Kvorum streams in key order",
		func(d *difference) bool {
			r := &pb.RangeRequest{}
			return d.step.method == kv("RangeStream") && proto.Unmarshal(d.step.request, r) == nil && r.SortTarget != pb.RangeRequest_KEY
		},
	},
}

// remembered tells whether etcd has answered HashKV from its memory of compactions.
func remembered(etcd, kvorum string) bool {
	return strings.Contains(etcd, "hash") && (strings.Contains(kvorum, "revision has been compacted") ||
		lineOf(etcd, "compact_revision") != lineOf(kvorum, "compact_revision"))
}

// lineOf is the first line of a text that has the word.
func lineOf(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// acceptedReason tells why a difference stays; "" when it does not.
func acceptedReason(d *difference) string {
	for _, a := range accepted {
		if a.match(d) {
			return a.reason
		}
	}
	return ""
}

// tapesEvery is how many steps pass between two comparisons of the watch streams.
const tapesEvery = 40

// run plays steps until there are no more or one is answered differently. next is told the store's revision and the
// number of the step.
func (p *pair) run(next func(revision int64, n int) (step, bool)) *difference {
	for n := 0; ; n++ {
		s, ok := next(p.etcd.revision, n)
		if !ok {
			return p.compareTapes(allStreams)
		}
		if n%tapesEvery == tapesEvery-1 {
			if d := p.compareTapes(allStreams); d != nil {
				return d
			}
		} else if streams := settlesFirst(s); streams != nil {
			if d := p.compareTapes(streams); d != nil {
				return d
			}
		}
		if d := p.step(s); d != nil {
			return d
		}
	}
}

func allStreams(int) bool { return true }

// settlesFirst are the streams on which what watchers still have to be told depends on when the step comes: all before a
// compaction, the stream itself before something other than a new watcher. nil: none.
func settlesFirst(s step) func(stream int) bool {
	switch s.method {
	case kv("Compact"):
		return allStreams
	case watchMethod:
		r := &pb.WatchRequest{}
		if proto.Unmarshal(s.request, r) != nil || r.GetCreateRequest() == nil {
			return func(stream int) bool { return stream == s.stream }
		}
	}
	return nil
}

// step plays one step on both servers.
func (p *pair) step(s step) *difference {
	revision := p.etcd.revision
	if s.method == watchMethod {
		p.each(func(player *player) { player.watch(s, revision) })
		return nil
	}
	var answers [2]string
	p.each(func(player *player) {
		answer := player.play(s, revision)
		if player == p.etcd {
			answers[0] = answer
		} else {
			answers[1] = answer
		}
	})
	if answers[0] == answers[1] {
		return nil
	}
	d := &difference{step: s, etcd: answers[0], kvorum: answers[1]}
	if acceptedReason(d) != "" {
		return nil
	}
	return d
}

// replay plays recorded steps.
func (p *pair) replay(steps []step) *difference {
	return p.run(func(_ int64, n int) (step, bool) {
		if n == len(steps) {
			return step{}, false
		}
		return steps[n], true
	})
}

// shrinkMax bounds the search for a short list of steps.
const shrinkMax = 2 * time.Minute

// shrink looks for a short list of steps that still ends in a difference of the same method: first the shortest tail, in
// powers of two, then without each part of it that is not needed. Each attempt has servers of its own.
func shrink(t *testing.T, p *pair, setup, steps []step, d *difference) ([]step, *difference) {
	deadline := time.Now().Add(shrinkMax)
	fails := func(candidate []step) *difference {
		q := p.again()
		defer q.stop()
		if got := q.replay(setup); got != nil {
			return nil
		}
		got := q.replay(candidate)
		if got != nil && got.step.method == d.step.method {
			return got
		}
		return nil
	}
	for n := 1; n < len(steps) && time.Now().Before(deadline); n *= 2 {
		if got := fails(steps[len(steps)-n:]); got != nil {
			steps, d = steps[len(steps)-n:], got
			break
		}
	}
	for part := len(steps) / 2; part > 0 && time.Now().Before(deadline); part /= 2 {
		for from := 0; from+part <= len(steps) && time.Now().Before(deadline); {
			without := append(append([]step{}, steps[:from]...), steps[from+part:]...)
			if got := fails(without); got != nil {
				steps, d = without, got
			} else {
				from += part
			}
		}
	}
	t.Logf("shrunk to %d steps", len(steps))
	return steps, d
}

// describe lists steps to read.
func describe(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString("  " + s.String() + "\n")
	}
	return b.String()
}
