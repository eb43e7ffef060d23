package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/offline"
)

// rejoin is what `member rejoin` was asked for.
type rejoin struct {
	who             string
	dataDir, walDir string
	wait            bool
}

func newMemberRejoin(a *app) *cobra.Command {
	var j rejoin
	c := &cobra.Command{
		Use: "rejoin <name or ID>", Short: "Rebuild a member from the others, after its data was lost or damaged",
		Example: "  " + a.name + " member rejoin m3 --data-dir m3.etcd --wait --endpoints=10.0.0.1:2379",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("member rejoin expects one argument, the name or the ID of the member")
			}
			if j.walDir != "" && j.dataDir == "" {
				return badArgs("--wal-dir needs --data-dir")
			}
			j.who = args[0]
			return a.long(func(c command) error { return c.rejoin(j) })
		},
	}
	c.Flags().StringVar(&j.dataDir, "data-dir", "", "the member's data `folder` on this host; what is in it is moved aside")
	c.Flags().StringVar(&j.walDir, "wal-dir", "", "`folder` of its log, if it is not inside --data-dir")
	c.Flags().BoolVar(&j.wait, "wait", false, "stay until the member was started and has caught up, and give it its vote")
	return c
}

// rejoin removes the member and adds it again as a learner with its URLs. A
// learner that has never run or runs, as after `recover` or an interrupted
// rejoin, is only waited for.
func (c command) rejoin(j rejoin) error {
	ctx, cancel := c.after()
	list, err := c.Members(ctx, false)
	cancel()
	if err != nil {
		return err
	}
	m, err := findMember(list.Members, j.who)
	if err != nil {
		return err
	}
	name := m.Name
	if name == "" {
		name = j.who
	}
	underWay := m.IsLearner && (m.Name == "" || c.listening(m) != "")
	if !underWay {
		if err := c.refuseRunning(m, j); err != nil {
			return err
		}
		if m, list.Members, err = c.replace(m); err != nil {
			return err
		}
		if err := c.moveAside(j); err != nil {
			return err
		}
		c.printf("Member %s is a learner now, with the new ID %x.\n", name, m.ID)
		c.printf("Start it with an empty data folder, and its other flags as before:\n  %s\n", c.startOf(m, name, list.Members))
	}
	if !j.wait {
		c.printf("When it runs, this gives it its vote as soon as it has caught up:\n  %s member rejoin %x --wait\n", c.name, m.ID)
		return nil
	}
	return c.promoteWhenReady(m.ID, name)
}

func findMember(members []*pb.Member, who string) (*pb.Member, error) {
	var names []string
	for _, m := range members {
		if m.Name == who && who != "" || fmt.Sprintf("%x", m.ID) == who {
			return m, nil
		}
		names = append(names, fmt.Sprintf("%s (%x)", m.Name, m.ID))
	}
	return nil, badArgs("the cluster has no member %s; it has %s. One that was removed is added with `member add <name> --learner --peer-urls=<its URLs>`", who, strings.Join(names, ", "))
}

// refuseRunning fails when the member still answers, or its folder is open.
func (c command) refuseRunning(m *pb.Member, j rejoin) error {
	if u := c.listening(m); u != "" {
		return fmt.Errorf("member %s is running: something listens at %s. Stop it first; what it has is given up for what the others have", j.who, u)
	}
	if j.dataDir == "" {
		return nil
	}
	return offline.Dir{Data: j.dataDir, WAL: j.walDir}.Unused()
}

// listening is a URL of the member at which something listens, "" for none.
func (c command) listening(m *pb.Member) string {
	for _, u := range slices.Concat(m.PeerURLs, m.ClientURLs) {
		if listens(c.ctx, c.global.dialTimeout, u) {
			return u
		}
	}
	return ""
}

// replace removes a member and adds it as a learner with the same URLs. The
// alarms of the old ID go with it.
func (c command) replace(m *pb.Member) (*pb.Member, []*pb.Member, error) {
	ctx, cancel := c.after()
	defer cancel()
	if _, err := c.Cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID}); err != nil {
		return nil, nil, fmt.Errorf("remove member %x: %w", m.ID, err)
	}
	added, err := c.addLearner(m.PeerURLs)
	if err != nil {
		return nil, nil, fmt.Errorf("member %x was removed, but not added again: %w; type `%s member add %s --learner --peer-urls=%s`", m.ID, err, c.name, m.Name, strings.Join(m.PeerURLs, ","))
	}
	if err := c.disarmOld(m.ID); err != nil {
		return nil, nil, fmt.Errorf("disarm the alarms of the old member %x: %w; type `%s alarm disarm`", m.ID, err, c.name)
	}
	added.Member.ClientURLs = m.ClientURLs
	return added.Member, added.Members, nil
}

// addLearner tries again while the members have not been connected for long
// enough to allow a change.
func (c command) addLearner(peers []string) (r *pb.MemberAddResponse, err error) {
	err = c.patiently(rejoinAddMax, func(err error) bool { return errors.Is(err, client.ErrUnhealthyCluster) }, func() error {
		ctx, cancel := c.after()
		defer cancel()
		r, err = c.Cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: peers, IsLearner: true})
		return err
	})
	return r, err
}

func (c command) disarmOld(id uint64) error {
	ctx, cancel := c.after()
	defer cancel()
	r, err := c.Alarms(ctx)
	if err != nil {
		return err
	}
	for _, alarm := range r.Alarms {
		if alarm.MemberID != id {
			continue
		}
		_, err := c.Maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: id, Alarm: alarm.Alarm})
		if err != nil {
			return err
		}
		c.printf("Disarmed the alarm %s of the old member %x.\n", alarm.Alarm, id)
	}
	return nil
}

// moveAside renames what is in the member's folders.
func (c command) moveAside(j rejoin) error {
	if j.dataDir == "" {
		return nil
	}
	suffix := ".given-up-" + time.Now().UTC().Format("20060102T150405Z")
	folders := []string{filepath.Join(j.dataDir, "member")}
	if j.walDir != "" {
		folders = append(folders, j.walDir)
	}
	for _, from := range folders {
		switch err := os.Rename(from, from+suffix); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return fmt.Errorf("move the old data aside: %w", err)
		default:
			c.printf("The old data is in %s; delete it when all is well.\n", from+suffix)
		}
	}
	return nil
}

func (c command) startOf(m *pb.Member, name string, all []*pb.Member) string {
	var cluster []string
	for _, other := range all {
		n := other.Name
		if other.ID == m.ID {
			n = name
		}
		for _, u := range other.PeerURLs {
			cluster = append(cluster, n+"="+u)
		}
	}
	return startCommand(name, m.PeerURLs, m.ClientURLs, strings.Join(cluster, ","))
}

const (
	rejoinAddMax = 30 * time.Second
	rejoinPause  = 200 * time.Millisecond
)

// promoteWhenReady waits until a learner runs and has caught up, and promotes
// it. It has no end but success, an error that waiting does not mend, or Ctrl-C.
func (c command) promoteWhenReady(id uint64, name string) error {
	c.warnf("Waiting for %s (%x) to run and catch up …\n", name, id)
	err := c.patiently(0, passesInTime, func() error {
		ctx, cancel := c.after()
		defer cancel()
		_, err := c.Cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
		return err
	})
	if err != nil && !errors.Is(err, client.ErrMemberNotLearner) {
		return fmt.Errorf("promote %s (%x): %w", name, id, err)
	}
	c.printf("Member %s (%x) has caught up and votes.\n", name, id)
	return nil
}

// passesInTime tells whether a refused promotion may yet be granted: the
// learner is behind, or the members do not answer or have no leader.
func passesInTime(err error) bool {
	if errors.Is(err, client.ErrLearnerNotReady) || errors.Is(err, client.ErrNotEnoughStarted) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	return status.Code(err) == codes.Unavailable
}

// patiently repeats what fails in passing, for at most so long; 0 is no limit.
func (c command) patiently(limit time.Duration, passing func(error) bool, do func() error) error {
	tick, begin := time.NewTicker(rejoinPause), time.Now()
	defer tick.Stop()
	for {
		err := do()
		if err == nil || !passing(err) || limit > 0 && time.Since(begin) > limit {
			return err
		}
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return fail(exitInterrupted, "%w; the last answer was: %w", errInterrupted, err)
		}
	}
}
