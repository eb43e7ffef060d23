package compat

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/integration/compat/process"
)

var (
	noName       = wireError{codes.InvalidArgument, "etcdserver: user name is empty", rpctypes.ErrUserEmpty}
	denied       = wireError{codes.PermissionDenied, "etcdserver: permission denied", rpctypes.ErrPermissionDenied}
	badLogin     = wireError{codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", rpctypes.ErrAuthFailed}
	userExists   = wireError{codes.FailedPrecondition, "etcdserver: user name already exists", rpctypes.ErrUserAlreadyExist}
	userNotFound = wireError{codes.FailedPrecondition, "etcdserver: user name not found", rpctypes.ErrUserNotFound}
	roleExists   = wireError{codes.FailedPrecondition, "etcdserver: role name already exists", rpctypes.ErrRoleAlreadyExist}
	roleNotFound = wireError{codes.FailedPrecondition, "etcdserver: role name not found", rpctypes.ErrRoleNotFound}
	notGranted   = wireError{codes.FailedPrecondition, "etcdserver: role is not granted to the user", rpctypes.ErrRoleNotGranted}
	noPermission = wireError{codes.FailedPrecondition, "etcdserver: permission is not granted to the role", rpctypes.ErrPermissionNotGranted}
	lockedOut    = wireError{codes.InvalidArgument, "etcdserver: invalid auth management", rpctypes.ErrInvalidAuthMgmt}
	noRootUser   = wireError{codes.FailedPrecondition, "etcdserver: root user does not exist", rpctypes.ErrRootUserNotExist}
	noRootRole   = wireError{codes.FailedPrecondition, "etcdserver: root user does not have root role", rpctypes.ErrRootRoleNotExist}
)

// login is a client of all members, or of some, that logs in by itself.
func login(t *testing.T, c *process.Cluster, user string, endpoints ...string) *clientv3.Client {
	t.Helper()
	if len(endpoints) == 0 {
		endpoints = c.Endpoints()
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: waitMax, Logger: zap.NewNop(), Username: user, Password: user + "-secret",
	})
	if err != nil {
		t.Fatalf("log in as %s: %v", user, err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// secured is a cluster with auth on: root may do everything, alice may read and write the keys under a/, and bob may
// read them.
func secured(t *testing.T, size int) *env {
	t.Helper()
	e := newEnv(t, startCluster(t, process.Options{Binary: targetBinary(t), Size: size, Args: []string{"--bcrypt-cost", "4"}}))
	_, err := e.AuthEnable(e.ctx)
	wantError(t, err, noRootUser)
	for _, user := range []string{"root", "alice", "bob"} {
		e.ok(e.UserAdd(e.ctx, user, user+"-secret"))
	}
	_, err = e.AuthEnable(e.ctx)
	wantError(t, err, noRootRole)
	for _, role := range []string{"root", "writers", "readers"} {
		e.ok(e.RoleAdd(e.ctx, role))
	}
	end := clientv3.GetPrefixRangeEnd("a/")
	e.ok(e.RoleGrantPermission(e.ctx, "writers", "a/", end, clientv3.PermissionType(clientv3.PermReadWrite)))
	e.ok(e.RoleGrantPermission(e.ctx, "readers", "a/", end, clientv3.PermissionType(clientv3.PermRead)))
	e.ok(e.UserGrantRole(e.ctx, "root", "root"))
	e.ok(e.UserGrantRole(e.ctx, "alice", "writers"))
	e.ok(e.UserGrantRole(e.ctx, "bob", "readers"))
	e.ok(e.AuthEnable(e.ctx))
	return e
}

// ok fails the test when a step of its preparation fails.
func (e *env) ok(_ any, err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// Users must get what was granted to them on every member, and nothing else.
func TestAuthPermissions(t *testing.T) {
	e := secured(t, 3)
	_, err := e.Put(e.ctx, "a/1", "x")
	wantError(t, err, noName)
	for _, m := range e.cluster.Members {
		alice, bob := login(t, e.cluster, "alice", m.Endpoint()), login(t, e.cluster, "bob", m.Endpoint())
		e.ok(alice.Put(e.ctx, "a/1", "x"))
		e.ok(bob.Get(e.ctx, "a/", clientv3.WithPrefix()))
		_, err = bob.Put(e.ctx, "a/1", "x")
		wantError(t, err, denied)
		_, err = alice.Put(e.ctx, "b", "x")
		wantError(t, err, denied)
		_, err = bob.Get(e.ctx, "a/", clientv3.WithFromKey())
		wantError(t, err, denied)
		_, err = bob.Txn(e.ctx).If(clientv3.Compare(clientv3.Version("b"), ">", 0)).Then(clientv3.OpGet("a/1")).Commit()
		wantError(t, err, denied)
		_, err = alice.Txn(e.ctx).Then(clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpPut("b", "x")})).Commit()
		wantError(t, err, denied)
		_, err = alice.Compact(e.ctx, 1)
		wantError(t, err, denied)
		_, err = alice.UserList(e.ctx)
		wantError(t, err, denied)
		_, err = alice.MemberRemove(e.ctx, 1)
		wantError(t, err, denied)
		watching := bob.Watch(e.ctx, "b")
		if r, open := <-watching; open && r.Err() == nil {
			t.Errorf("a watch without permission: %v", r)
		}
	}
	_, err = clientv3.New(clientv3.Config{Endpoints: e.cluster.Endpoints(), Username: "alice", Password: "wrong", DialTimeout: waitMax, Logger: zap.NewNop()})
	wantError(t, err, badLogin)
}

// The administration of users must refuse what cannot be done, in the words that tools know, and never lock root out.
func TestAuthManagement(t *testing.T) {
	e := secured(t, 1)
	root := login(t, e.cluster, "root")
	before, err := root.AuthStatus(e.ctx)
	if err != nil || !before.Enabled {
		t.Fatalf("status %v, %v", before, err)
	}
	check := func(want wireError) func(any, error) {
		return func(_ any, err error) {
			t.Helper()
			wantError(t, err, want)
		}
	}
	check(userExists)(root.UserAdd(e.ctx, "alice", "x"))
	check(userNotFound)(root.UserDelete(e.ctx, "nobody"))
	check(roleExists)(root.RoleAdd(e.ctx, "readers"))
	check(roleNotFound)(root.RoleDelete(e.ctx, "nobody"))
	check(notGranted)(root.UserRevokeRole(e.ctx, "alice", "readers"))
	check(noPermission)(root.RoleRevokePermission(e.ctx, "readers", "a/", "b"))
	check(lockedOut)(root.UserDelete(e.ctx, "root"))
	check(lockedOut)(root.RoleDelete(e.ctx, "root"))
	check(lockedOut)(root.UserRevokeRole(e.ctx, "root", "root"))

	after, err := root.AuthStatus(e.ctx)
	if err != nil || after.AuthRevision != before.AuthRevision {
		t.Errorf("refused changes moved the auth revision from %d to %v, %v", before.AuthRevision, after, err)
	}
	e.ok(root.UserGrantRole(e.ctx, "alice", "readers"))
	user, err := root.UserGet(e.ctx, "alice")
	if err != nil || !slices.Equal(user.Roles, []string{"readers", "writers"}) {
		t.Errorf("roles %v, %v", user, err)
	}
	users, err := root.UserList(e.ctx)
	if err != nil || !slices.Equal(users.Users, []string{"alice", "bob", "root"}) {
		t.Errorf("users %v, %v", users, err)
	}
	role, err := login(t, e.cluster, "alice").RoleGet(e.ctx, "writers")
	if err != nil || len(role.Perm) != 1 || string(role.Perm[0].Key) != "a/" || string(role.Perm[0].RangeEnd) != "a0" {
		t.Errorf("permissions %v, %v", role, err)
	}
	e.ok(root.AuthDisable(e.ctx))
	e.ok(e.Put(e.ctx, "anything", "x"))
}

// A client that has logged in must go on when its token is gone, by a restart or by a change of users.
func TestAuthTokenRefresh(t *testing.T) {
	e := secured(t, 3)
	root := login(t, e.cluster, "root")
	first := e.cluster.Members[0]
	alice := login(t, e.cluster, "alice", first.Endpoint())
	e.ok(alice.Put(e.ctx, "a/1", "x"))
	e.ok(root.RoleAdd(e.ctx, "another"))
	e.ok(alice.Put(e.ctx, "a/1", "x"))
	first.Kill()
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	e.ok(alice.Put(e.ctx, "a/1", "x"))
	e.ok(root.UserChangePassword(e.ctx, "alice", "other-secret"))
	_, err := alice.Put(e.ctx, "a/1", "x")
	wantError(t, err, badLogin)
}

// Locks and elections of users with rights must work as without auth; of others, not.
func TestAuthRecipes(t *testing.T) {
	e := secured(t, 3)
	alice := login(t, e.cluster, "alice")
	session, err := concurrency.NewSession(alice, concurrency.WithTTL(60))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	mutex := concurrency.NewMutex(session, "a/mutex")
	if err := mutex.Lock(e.ctx); err != nil {
		t.Fatal(err)
	}
	if err := mutex.Unlock(e.ctx); err != nil {
		t.Fatal(err)
	}
	if err := concurrency.NewMutex(session, "b/mutex").Lock(e.ctx); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("lock without permission: %v", err)
	}
	election := concurrency.NewElection(session, "a/election")
	if err := election.Campaign(e.ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	leader, err := concurrency.NewElection(session, "a/election").Leader(e.ctx)
	if err != nil || string(leader.Kvs[0].Value) != "alice" {
		t.Errorf("leader %v, %v", leader, err)
	}
}

// The lock service must let one in after the other, and those who give up must leave the queue.
func TestLockService(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		service := v3lockpb.NewLockClient(e.ActiveConnection())
		name := []byte(e.key("lock"))
		lock := func(ctx context.Context) (*v3lockpb.LockResponse, error) {
			lease, err := e.Grant(e.ctx, 60)
			if err != nil {
				return nil, err
			}
			return service.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(lease.ID)})
		}
		first, err := lock(e.ctx)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(e.ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := lock(short); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a taken lock: %v", err)
		}
		second := make(chan *v3lockpb.LockResponse, 1)
		go func() {
			r, err := lock(e.ctx)
			if err != nil {
				t.Error(err)
			}
			second <- r
		}()
		e.ok(service.Unlock(e.ctx, &v3lockpb.UnlockRequest{Key: first.Key}))
		r := <-second
		queue, err := e.Get(e.ctx, string(name)+"/", clientv3.WithPrefix())
		if err != nil || len(queue.Kvs) != 1 || string(queue.Kvs[0].Key) != string(r.GetKey()) {
			t.Errorf("in the queue: %v, %v; want the holder %s", queue, err, r.GetKey())
		}
	})
}

// The election service must name one leader, tell observers of the next, and refuse those who no longer lead.
func TestElectionService(t *testing.T) {
	eachSize(t, func(t *testing.T, e *env) {
		service := v3electionpb.NewElectionClient(e.ActiveConnection())
		name := []byte(e.key("vote"))
		campaign := func(value string) (*v3electionpb.CampaignResponse, error) {
			lease, err := e.Grant(e.ctx, 60)
			if err != nil {
				return nil, err
			}
			return service.Campaign(e.ctx, &v3electionpb.CampaignRequest{Name: name, Lease: int64(lease.ID), Value: []byte(value)})
		}
		if _, err := service.Leader(e.ctx, &v3electionpb.LeaderRequest{Name: name}); status.Convert(err).Message() != "election: no leader" {
			t.Errorf("leader of nothing: %v", err)
		}
		first, err := campaign("one")
		if err != nil {
			t.Fatal(err)
		}
		observe, err := service.Observe(e.ctx, &v3electionpb.LeaderRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		sees := func(want string) {
			t.Helper()
			r, err := observe.Recv()
			if err != nil || string(r.Kv.Value) != want {
				t.Errorf("observed %v, %v; want %s", r, err, want)
			}
		}
		sees("one")
		second := make(chan error, 1)
		go func() {
			_, err := campaign("two")
			second <- err
		}()
		e.ok(service.Proclaim(e.ctx, &v3electionpb.ProclaimRequest{Leader: first.Leader, Value: []byte("uno")}))
		sees("uno")
		e.ok(service.Resign(e.ctx, &v3electionpb.ResignRequest{Leader: first.Leader}))
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		sees("two")
		_, err = service.Proclaim(e.ctx, &v3electionpb.ProclaimRequest{Leader: first.Leader})
		if status.Code(err) != codes.Unknown || status.Convert(err).Message() != "election: not leader" {
			t.Errorf("proclaim of a former leader: %v", err)
		}
	})
}
