package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kvorum/kvorum/internal/process"
)

// launchArmed starts a member that is armed from its first moment on.
func (c *crasher) launchArmed(m *process.Member, name string) (from int) {
	c.t.Helper()
	m.Env = append(m.Env[:baseVariables:baseVariables], "GOFAIL_FAILPOINTS="+fmt.Sprintf("%s=panic(%q)", name, name))
	from = mark(m)
	if err := m.Launch(); err != nil {
		c.t.Fatal(err)
	}
	return from
}

// mustDie waits for the end of a member that was launched armed.
func (c *crasher) mustDie(m *process.Member, from int, name string) {
	c.t.Helper()
	timer := time.NewTimer(waitMax)
	defer timer.Stop()
	select {
	case <-m.Exited():
		c.died(m, from, name)
	case <-timer.C:
		m.Kill()
		c.t.Errorf("%s did not come to the crash point %s", m.Name, name)
	}
}

// crashStarting lets a member with a torn log die while it starts.
func (c *crasher) crashStarting() {
	c.t.Helper()
	for _, name := range c.points(starting) {
		m := c.Members[c.r.IntN(len(c.Members))]
		m.Kill()
		tearLog(c.t, m.Dir, c.r)
		c.mustDie(m, c.launchArmed(m, name), name)
		c.recovered(m)
	}
}

// crashBeginning lets a learner that joins die before it has a log, again and
// again, and then lets it join.
func (c *crasher) crashBeginning(round int) {
	c.t.Helper()
	m, id := c.add(fmt.Sprintf("learner%d", round), true)
	if err := withEndpoint(m); err != nil {
		c.t.Fatal(err)
	}
	for _, name := range slices.Backward(c.points(beginning)) { // before the rename first
		c.mustDie(m, c.launchArmed(m, name), name)
	}
	m.Env = m.Env[:baseVariables]
	c.mustStart(m)
	c.caughtUp([]*process.Member{m})
	c.remove(id)
	c.drop(m)
}

// crashInstalling lets a member die while it receives and installs a snapshot.
// After most of these deaths it needs the snapshot still.
func (c *crasher) crashInstalling() {
	c.t.Helper()
	left := c.points(installing)
	for range 3 * len(left) {
		if len(left) == 0 {
			break
		}
		_, rest := c.followers()
		m := rest[c.r.IntN(len(rest))]
		m.Kill()
		c.avoid(m)
		c.j.progress(200) // with the log of smallLog this is out of reach
		c.avoid()
		for len(left) > 0 && c.diesInstalling(m, left[0]) {
			left = left[1:]
		}
		c.recovered(m)
	}
	for _, name := range left {
		c.t.Errorf("no member came to the crash point %s", name)
	}
}

// diesInstalling starts a member armed; it dies, or it has caught up and is
// killed.
func (c *crasher) diesInstalling(m *process.Member, name string) bool {
	c.t.Helper()
	goal := c.mustStatus(c.leader(m)).RaftIndex
	from := c.launchArmed(m, name)
	exited := m.Exited()
	ctx, cancel := context.WithTimeout(c.ctx, waitMax)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-exited:
			c.died(m, from, name)
			return true
		case <-ctx.Done():
			m.Kill()
			return false
		case <-tick.C:
			if s, err := c.status(m); err == nil && s.RaftAppliedIndex >= goal {
				m.Kill()
				return false
			}
		}
	}
}

// crashCutting fills a segment of the log. Two members die at its end; one of
// them has the full segment still, and comes there again and again.
func (c *crasher) crashCutting() {
	c.t.Helper()
	once, again := c.Members[0], c.Members[1]
	const last = "wal/after-cut"
	before := []string{"wal/cut-before-create", "wal/cut-before-rename", "wal/cut-before-dir-sync"}
	fromOnce, fromAgain := mark(once), mark(again)
	c.arm(once, last, fmt.Sprintf("panic(%q)", last))
	c.arm(again, before[0], fmt.Sprintf("panic(%q)", before[0]))
	c.fill(once, again)
	c.mustDie(once, fromOnce, last)
	c.mustDie(again, fromAgain, before[0])
	once.Env = once.Env[:baseVariables]
	if err := once.Launch(); err != nil { // it serves when there is a quorum again
		c.t.Fatal(err)
	}
	for _, name := range before[1:] {
		c.mustDie(again, c.launchArmed(again, name), name)
	}
	c.recovered(again)
	if err := once.WaitReady(); err != nil {
		c.t.Fatal(err)
	}
}

// fill writes until these members have died.
func (c *crasher) fill(members ...*process.Member) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, 2*waitMax)
	defer cancel()
	value := strings.Repeat("x", 1<<20)
	for i := 0; ctx.Err() == nil; i++ {
		if !slices.ContainsFunc(members, func(m *process.Member) bool { return m.PID() != 0 }) {
			return
		}
		brief, done := context.WithTimeout(ctx, 2*time.Second)
		_, _ = c.client.Put(brief, fmt.Sprint("fill/", i%8), value) // those without an answer count for nothing
		done()
	}
}
