package linear

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// replace removes a member, wipes it, adds it again as a learner and promotes it.
func (f *injector) replace(ctx context.Context) error {
	i := f.any()
	m := f.cluster.Members[i]
	if f.random.IntN(2) == 0 {
		f.end(i) // a dead machine; otherwise the member learns that it is removed
	}
	if err := f.change(i, func(ctx context.Context, c pb.ClusterClient) error { return remove(ctx, c, f.ids[i]) }); err != nil {
		return fmt.Errorf("remove %s: %w", m.Name, err)
	}
	wait(ctx, f.between(0, 500*time.Millisecond))
	f.end(i)
	if err := os.RemoveAll(m.Dir); err != nil {
		return err
	}
	if err := f.change(i, func(ctx context.Context, c pb.ClusterClient) error { return f.addLearner(ctx, c, i) }); err != nil {
		return fmt.Errorf("add %s: %w", m.Name, err)
	}
	m.Args = append(m.Args, "--initial-cluster", f.cluster.InitialCluster(), "--initial-cluster-state", "existing")
	if err := f.join(i); err != nil {
		return err
	}
	if err := f.hold(ctx, f.between(time.Millisecond, time.Second)); err != nil {
		return err
	}
	if err := f.revive(); err != nil {
		return err
	}
	if err := f.change(i, func(ctx context.Context, c pb.ClusterClient) error { return promote(ctx, c, f.ids[i]) }); err != nil {
		return fmt.Errorf("promote %s: %w", m.Name, err)
	}
	return nil
}

// join starts a member that was added. It asks one of the others who the members are; when that one has not heard of it
// yet, it ends and is started again.
func (f *injector) join(i int) error {
	deadline := time.Now().Add(recoverMax)
	for {
		m := f.cluster.Members[i]
		if err := m.Launch(); err != nil {
			return err
		}
		err := f.serve(i)
		if err == nil {
			return nil
		}
		m.WaitExit()
		if time.Now().After(deadline) || !strings.Contains(m.LogTail(2), "error validating peerURLs") {
			return err
		}
		f.note("a member joins too early")
		wait(context.Background(), 100*time.Millisecond)
	}
}

// change asks the members other than not, in turn, until one has made a change of membership.
func (f *injector) change(not int, do func(context.Context, pb.ClusterClient) error) error {
	deadline := time.Now().Add(recoverMax)
	for turn := 0; ; turn++ {
		i := turn % len(f.control)
		if i == not {
			continue
		}
		err := f.ask(f.control[i], do)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %w", recoverMax, err)
		}
		wait(context.Background(), 50*time.Millisecond)
	}
}

func (f *injector) ask(conn *grpc.ClientConn, do func(context.Context, pb.ClusterClient) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*requestMax)
	defer cancel()
	return do(ctx, pb.NewClusterClient(conn))
}

// remove succeeds also when an earlier try, whose outcome was unknown, did.
func remove(ctx context.Context, c pb.ClusterClient, id uint64) error {
	_, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

// addLearner adds the wiped member, unless an earlier try did, and learns its new ID.
func (f *injector) addLearner(ctx context.Context, c pb.ClusterClient, i int) error {
	m := f.cluster.Members[i]
	list, err := c.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list.Members, func(x *pb.Member) bool { return slices.Contains(x.PeerURLs, m.PeerURL) })
	if at < 0 {
		added, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{m.PeerURL}, IsLearner: true})
		if err != nil {
			return err
		}
		f.ids[i] = added.Member.ID
	} else {
		f.ids[i] = list.Members[at].ID
	}
	f.proxies.Name(f.ids[i], m.Name)
	return nil
}

func promote(ctx context.Context, c pb.ClusterClient, id uint64) error {
	_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	if err != nil && strings.HasSuffix(status.Convert(err).Message(), "can only promote a learner member") {
		return nil // an earlier try did
	}
	return err
}
