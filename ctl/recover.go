package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/ctl/print"
	"github.com/kvorum/kvorum/server/offline"
)

// recoverFlags are what `recover` was asked for.
type recoverFlags struct {
	dataDirs, walDirs, lost, positions []string
	rank, splitBrain, wait             bool
	bump                               uint64
}

func newRecover(a *app) *cobra.Command {
	var f recoverFlags
	c := &cobra.Command{
		Use: "recover", Short: "Rebuild a cluster that has lost its quorum for good, from the best survivor",
		Example: "  " + a.name + " recover --rank --data-dir m3.etcd                 # on each host that is left\n" +
			"  " + a.name + " recover --data-dir m3.etcd --lost m1,m2           # on the best of them",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return f.run(a) },
	}
	s := c.Flags()
	s.StringArrayVar(&f.dataDirs, "data-dir", nil, "data `folder` of a stopped survivor; given several times, the best is taken")
	s.StringArrayVar(&f.walDirs, "wal-dir", nil, "`folder` of its log, if it is not inside --data-dir; once for each --data-dir, or not at all")
	s.StringSliceVar(&f.lost, "lost", nil, "`names` or IDs of the members whose data is gone for good, with commas between")
	s.StringArrayVar(&f.positions, "position", nil, "`NAME=TERM/INDEX` of a survivor on another host, as --rank shows it there")
	s.BoolVar(&f.rank, "rank", false, "only show how far the survivors got, best first; change nothing")
	s.BoolVar(&f.splitBrain, "allow-split-brain", false, "go on though members answer: if they are a quorum, two clusters will serve the same clients and diverge")
	s.Uint64Var(&f.bump, "bump-revision", SafeBump, "raise the revision by so much and compact what was before, so that no revision which clients have seen is used twice (0: keep it)")
	s.BoolVar(&f.wait, "wait", false, "stay until the survivor serves and all others have caught up, and give each its vote")
	return c
}

func (f *recoverFlags) run(a *app) error {
	p, err := a.structured()
	if err != nil {
		return err
	}
	standings, err := f.standings()
	if err != nil {
		return err
	}
	if f.rank {
		return a.showRank(p, standings)
	}
	best := standings[0]
	if err := f.account(standings); err != nil {
		return err
	}
	if err := f.refuseAlive(a.ctx, a.global.dialTimeout, standings); err != nil {
		return err
	}
	start := time.Now()
	r, err := offline.Recover(a.ctx, offline.RecoverOptions{Dir: best.Dir, BumpRevision: f.bump})
	if err != nil {
		return err
	}
	if p.Format() == print.JSON {
		if err := json.NewEncoder(a.Stdout).Encode(r); err != nil {
			return err
		}
	} else {
		a.showRecovered(best, r, time.Since(start))
	}
	if !f.wait {
		return nil
	}
	return a.waitForAll(r)
}

// standings are those of all given directories, the best first.
func (f *recoverFlags) standings() ([]offline.Standing, error) {
	switch {
	case len(f.dataDirs) == 0:
		return nil, badArgs("--data-dir is missing: the data folder of a survivor")
	case len(f.walDirs) > 0 && len(f.walDirs) != len(f.dataDirs):
		return nil, badArgs("%d --wal-dir for %d --data-dir: give one for each, in the same order", len(f.walDirs), len(f.dataDirs))
	}
	var all []offline.Standing
	for i, dir := range f.dataDirs {
		d := offline.Dir{Data: dir}
		if len(f.walDirs) > 0 {
			d.WAL = f.walDirs[i]
		}
		s, err := offline.Rank(d)
		if err != nil {
			return nil, err
		}
		for _, o := range all {
			if s.Cluster != o.Cluster {
				return nil, fmt.Errorf("%s is of cluster %x, %s of cluster %x", s.DataDir, s.Cluster, o.DataDir, o.Cluster)
			}
			if s.Self.ID == o.Self.ID {
				return nil, fmt.Errorf("%s and %s are of the same member %x", s.DataDir, o.DataDir, s.Self.ID)
			}
		}
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(x, y offline.Standing) int { return y.End.Compare(x.End) })
	return all, nil
}

func (a *app) showRank(p *print.Printer, all []offline.Standing) error {
	if p.Format() == print.JSON {
		return json.NewEncoder(a.Stdout).Encode(all)
	}
	for _, s := range all {
		a.printf("%s: position %s (term/index of the last entry), %d known to be committed, in %s\n", s.Self.Called(), s.End, s.Committed, s.DataDir)
	}
	a.printf("\nThe best survivor has the greatest term; among equal terms, the greatest index. There:\n  %s recover --data-dir %s --lost <names of those whose data is gone> --position <name>=<position of each other survivor>\n", a.name, all[0].DataDir)
	return nil
}

// account makes sure that every member is known to be worse or lost: else a
// better survivor could be thrown away.
func (f *recoverFlags) account(standings []offline.Standing) error {
	best := standings[0]
	is := func(m offline.Member, name string) bool { return name == m.Name || name == fmt.Sprintf("%x", m.ID) }
	positions := map[string]offline.Position{}
	for _, text := range f.positions {
		name, position, _ := strings.Cut(text, "=")
		at, err := offline.ParsePosition(position)
		if err != nil {
			return badArgs("--position %s: %w", text, err)
		}
		positions[name] = at
	}
	for _, name := range slices.Concat(f.lost, slices.Sorted(keys(positions))) {
		if !slices.ContainsFunc(best.Members, func(m offline.Member) bool { return is(m, name) }) {
			return badArgs("%s is no member of the cluster; its members are %s", name, called(best.Members))
		}
	}
	voters, gone := 0, 0
	for _, m := range best.Members {
		here := slices.ContainsFunc(standings, func(s offline.Standing) bool { return s.Self.ID == m.ID })
		lost := slices.ContainsFunc(f.lost, func(name string) bool { return is(m, name) })
		elsewhere := false
		for name, at := range positions {
			if !is(m, name) {
				continue
			}
			elsewhere = true
			if at.Compare(best.End) > 0 {
				return fmt.Errorf("%s got to %s, further than %s in %s, which is at %s: recover there, or what it alone has is lost", name, at, best.Self.Called(), best.DataDir, best.End)
			}
		}
		switch {
		case here && lost:
			return badArgs("--lost names %s, whose data folder is given", m.Called())
		case !here && !lost && !elsewhere:
			return badArgs("what about member %s (%s)? If its data is gone for good: --lost %s. If not, stop it, and tell how far it got: --position %s=<as `recover --rank` shows it on its host>",
				m.Called(), strings.Join(m.PeerURLs, ","), m.Called(), m.Called())
		}
		if !m.IsLearner {
			voters++
			if lost {
				gone++
			}
		}
	}
	if voters-gone >= voters/2+1 {
		return fmt.Errorf("%d of %d voters are left, which is a quorum: start them, and nothing is lost. Each of the others comes back with `kvctl member rejoin`", voters-gone, voters)
	}
	return nil
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func called(members []offline.Member) string {
	var names []string
	for _, m := range members {
		names = append(names, m.Called())
	}
	return strings.Join(names, ", ")
}

// refuseAlive asks whether anybody listens at the URLs of the members whose
// folders are not given; those of the given ones are locked, so they are down.
func (f *recoverFlags) refuseAlive(ctx context.Context, timeout time.Duration, standings []offline.Standing) error {
	var others []offline.Member
	for _, m := range standings[0].Members {
		if !slices.ContainsFunc(standings, func(s offline.Standing) bool { return s.Self.ID == m.ID }) {
			others = append(others, m)
		}
	}
	var urls, owners []string
	for _, m := range others {
		for _, u := range slices.Concat(m.PeerURLs, m.ClientURLs) {
			urls, owners = append(urls, u), append(owners, m.Called())
		}
	}
	answered := make([]bool, len(urls))
	each(urls, func(i int, u string) { answered[i] = listens(ctx, timeout, u) })
	for i := range urls {
		if answered[i] && !f.splitBrain {
			return fmt.Errorf("member %s is alive: something listens at %s. Stop all other members first; if it is not of this cluster, --allow-split-brain goes on", owners[i], urls[i])
		}
	}
	return nil
}

func listens(ctx context.Context, timeout time.Duration, text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	network, address := "tcp", u.Host
	if strings.HasPrefix(u.Scheme, "unix") {
		network, address = "unix", u.Host+u.Path
	}
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was sent
	return true
}

func (a *app) showRecovered(best offline.Standing, r offline.Recovered, took time.Duration) {
	a.printf("Cluster %x goes on from member %s, at %s, in %s. It took %s.\n", r.Cluster, best.Self.Called(), r.End, best.DataDir, took.Round(time.Millisecond))
	a.printf("Everything in its log counts; its last %d entries were not known to be committed, so a write whose client had no answer may be there. What only the lost members had is lost.\n", r.Uncommitted)
	if r.Revision > SafeBump {
		a.printf("The next revision is %d; clients that watch from an older one are told to read again.\n", r.Revision+1)
	}
	for _, alarm := range r.Alarms {
		a.printf("The alarm %s was active; it was cleared, and is raised again if there is still a reason.\n", alarm)
	}
	a.printf("The old files are kept in %s; delete them when all is well.\n", strings.Join(r.Kept, " and "))
	a.printf("\n1. Start %s as before; its --initial flags no longer count.\n", best.Self.Called())
	cluster := []string{}
	for _, m := range append([]offline.Member{r.Self}, r.Learners...) {
		for _, u := range m.PeerURLs {
			cluster = append(cluster, m.Called()+"="+u)
		}
	}
	if len(r.Learners) == 0 {
		return
	}
	a.printf("\n2. On the hosts of the others, one after the other, with an empty data folder (move the old one away), and their other flags as before:\n")
	for _, m := range r.Learners {
		a.printf("     %s\n", startCommand(m.Called(), m.PeerURLs, m.ClientURLs, strings.Join(cluster, ",")))
	}
	a.printf("\n3. When they run, give them their votes as they catch up (each command waits for its member):\n")
	for _, m := range r.Learners {
		a.printf("     %s member rejoin %x --wait --endpoints %s\n", a.name, m.ID, strings.Join(r.Self.ClientURLs, ","))
	}
}

// startCommand starts a member that joins with an empty data folder.
func startCommand(name string, peers, clients []string, cluster string) string {
	own := strings.Join(peers, ",")
	command := fmt.Sprintf("kvorum --name %s --data-dir %s.etcd --initial-cluster-state existing --initial-cluster %s --initial-advertise-peer-urls %s --listen-peer-urls %s", name, name, cluster, own, own)
	if len(clients) > 0 {
		command += fmt.Sprintf(" --advertise-client-urls %s --listen-client-urls %s", strings.Join(clients, ","), strings.Join(clients, ","))
	}
	return command
}

// waitForAll promotes the learners of a recovered cluster as they catch up.
func (a *app) waitForAll(r offline.Recovered) error {
	if !a.root.PersistentFlags().Changed("endpoints") && len(r.Self.ClientURLs) > 0 {
		a.global.endpoints = r.Self.ClientURLs
	}
	return a.long(func(c command) error {
		for _, m := range r.Learners {
			if err := c.promoteWhenReady(m.ID, m.Called()); err != nil {
				return err
			}
		}
		return nil
	})
}
