package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/v3electionpb"
	"github.com/kvorum/kvorum/proto/v3lockpb"
)

// enableAuth makes root, and a user who may read and write the keys under k/,
// and switches auth on.
func enableAuth(t *testing.T, m *testMember) {
	t.Helper()
	auth := pb.NewAuthClient(m.conn)
	for user, role := range map[string]string{"root": "root", "alice": "keys"} {
		must[*pb.AuthUserAddResponse](t)(auth.UserAdd(m.ctx, &pb.AuthUserAddRequest{Name: user, Password: user + "1"}))
		must[*pb.AuthRoleAddResponse](t)(auth.RoleAdd(m.ctx, &pb.AuthRoleAddRequest{Name: role}))
		must[*pb.AuthUserGrantRoleResponse](t)(auth.UserGrantRole(m.ctx, &pb.AuthUserGrantRoleRequest{User: user, Role: role}))
	}
	must[*pb.AuthRoleGrantPermissionResponse](t)(auth.RoleGrantPermission(m.ctx, &pb.AuthRoleGrantPermissionRequest{
		Name: "keys", Perm: &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte("k/"), RangeEnd: []byte("k0")},
	}))
	must[*pb.AuthEnableResponse](t)(auth.AuthEnable(m.ctx, &pb.AuthEnableRequest{}))
}

func wantCode(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || (code != codes.OK && s.Message() != text) {
		t.Errorf("%s: %s %q, want %s %q", what, s.Code(), s.Message(), code, text)
	}
}

const (
	badToken  = "etcdserver: invalid auth token"
	denied    = "etcdserver: permission denied"
	badLogin  = "etcdserver: authentication failed, invalid user ID or password"
	noSession = "mutex: session is expired"
)

// If this fails, a password that was changed or a user who was deleted goes on
// working, in a login or in a token.
func TestLoginsEnd(t *testing.T) {
	m := startMember(t, nil)
	enableAuth(t, m)
	auth, kv := pb.NewAuthClient(m.conn), pb.NewKVClient(m.conn)
	login := func(password string) error {
		_, err := auth.Authenticate(m.ctx, &pb.AuthenticateRequest{Name: "alice", Password: password})
		return err
	}
	use := func(ctx context.Context) error {
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k/a")})
		return err
	}
	root, alice := m.as("root", "root1"), m.as("alice", "alice1")
	wantCode(t, "token", use(alice), codes.OK, "")
	wantCode(t, "wrong password", login("alice2"), codes.InvalidArgument, badLogin)

	must[*pb.AuthUserChangePasswordResponse](t)(auth.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "alice", Password: "alice2"}))
	wantCode(t, "token after the change", use(alice), codes.Unauthenticated, badToken)
	wantCode(t, "old password", login("alice1"), codes.InvalidArgument, badLogin)
	alice = m.as("alice", "alice2")
	wantCode(t, "new token", use(alice), codes.OK, "")

	must[*pb.AuthUserDeleteResponse](t)(auth.UserDelete(root, &pb.AuthUserDeleteRequest{Name: "alice"}))
	wantCode(t, "token of a deleted user", use(alice), codes.Unauthenticated, badToken)
	wantCode(t, "deleted user", login("alice2"), codes.InvalidArgument, badLogin)

	must[*pb.AuthDisableResponse](t)(auth.AuthDisable(root, &pb.AuthDisableRequest{}))
	wantCode(t, "auth off", use(m.ctx), codes.OK, "")
	wantCode(t, "login with auth off", login("alice2"), codes.FailedPrecondition, "etcdserver: authentication is not enabled")
	must[*pb.AuthEnableResponse](t)(auth.AuthEnable(m.ctx, &pb.AuthEnableRequest{}))
	wantCode(t, "token from before auth was off", use(root), codes.Unauthenticated, badToken)
}

// If this fails, clients that still send a token cannot do anything any more
// once auth is off.
func TestTokensAreIgnoredWithAuthOff(t *testing.T) {
	w := &world{testMember: startMember(t, nil)}
	ctx := withToken(w.ctx, "garbage")
	for _, c := range []cell{
		{pb.KV_Put_FullMethodName, "", &pb.PutRequest{Key: []byte("a")}, nil, ""},
		{pb.KV_RangeStream_FullMethodName, "", &pb.RangeRequest{Key: []byte("a")}, nil, ""},
		watchCells()[0],
		{pb.Lease_LeaseKeepAlive_FullMethodName, "", &pb.LeaseKeepAliveRequest{ID: 1}, nil, ""},
		{pb.Auth_AuthStatus_FullMethodName, "", &pb.AuthStatusRequest{}, nil, ""},
		{v3lockpb.Lock_Lock_FullMethodName, "", &v3lockpb.LockRequest{Name: []byte("l")}, nil, ""},
	} {
		wantCode(t, c.method, w.call(c, ctx), codes.OK, "")
	}
}

// If this fails, users are gone or everything is open after a restart.
func TestAuthSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	onDir := func(c *Config) { c.DataDir = dir }
	m := startMember(t, onDir)
	enableAuth(t, m)
	before := m.as("alice", "alice1")
	m.stop()
	m = startMember(t, onDir)
	kv := pb.NewKVClient(m.conn)
	_, err := kv.Put(m.ctx, &pb.PutRequest{Key: []byte("k/a")})
	wantCode(t, "no token", err, codes.InvalidArgument, "etcdserver: user name is empty")
	_, err = kv.Put(m.as("alice", "alice1"), &pb.PutRequest{Key: []byte("k/a")})
	wantCode(t, "login after restart", err, codes.OK, "")
	_, err = kv.Put(before, &pb.PutRequest{Key: []byte("k/a")})
	wantCode(t, "token of before the restart", err, codes.Unauthenticated, badToken)
}

// If this fails, a signed token works on after the permissions under which it
// was made have changed, or never works.
func TestSignedTokensFollowTheRevision(t *testing.T) {
	secret := writeSecret(t)
	m := startMember(t, func(c *Config) { c.AuthToken = "jwt,sign-method=HS256,priv-key=" + secret })
	enableAuth(t, m)
	auth, kv := pb.NewAuthClient(m.conn), pb.NewKVClient(m.conn)
	root, alice := m.as("root", "root1"), m.as("alice", "alice1")
	_, err := kv.Put(alice, &pb.PutRequest{Key: []byte("k/a")})
	wantCode(t, "token", err, codes.OK, "")
	must[*pb.AuthRoleAddResponse](t)(auth.RoleAdd(root, &pb.AuthRoleAddRequest{Name: "other"}))
	_, err = kv.Put(alice, &pb.PutRequest{Key: []byte("k/a")})
	wantCode(t, "token after a change", err, codes.InvalidArgument, "etcdserver: revision of auth store is old")
	_, err = kv.Put(m.as("alice", "alice1"), &pb.PutRequest{Key: []byte("k/a")})
	wantCode(t, "new token", err, codes.OK, "")
}

// If this fails, leases never end once auth is on, and what hangs on them, such
// as locks of dead clients, stays for ever.
func TestLeasesEndWithAuthOn(t *testing.T) {
	m := startMember(t, nil)
	enableAuth(t, m)
	root := m.as("root", "root1")
	lease := must[*pb.LeaseGrantResponse](t)(pb.NewLeaseClient(m.conn).LeaseGrant(root, &pb.LeaseGrantRequest{TTL: 1}))
	watch, err := pb.NewWatchClient(m.conn).Watch(root)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("secret"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	must[*pb.WatchResponse](t)(watch.Recv())
	must[*pb.PutResponse](t)(pb.NewKVClient(m.conn).Put(root, &pb.PutRequest{Key: []byte("secret"), Lease: lease.ID}))
	// Users change meanwhile: the revoke must not depend on the revision.
	must[*pb.AuthRoleAddResponse](t)(pb.NewAuthClient(m.conn).RoleAdd(root, &pb.AuthRoleAddRequest{Name: "other"}))
	r := must[*pb.WatchResponse](t)(watch.Recv())
	if len(r.Events) != 1 || string(r.Events[0].Kv.Key) != "secret" {
		t.Errorf("got %v, want the deletion of the key", r)
	}
}

// If this fails, passwords can be read in the log and the database.
func TestPasswordsAreNotStored(t *testing.T) {
	m := startMember(t, nil)
	enableAuth(t, m)
	m.as("alice", "alice1")
	text, _, err := m.machine.PasswordHash("alice")
	if err != nil || !strings.HasPrefix(string(text), "$2a$04$") {
		t.Errorf("stored password %q, %v; want a bcrypt text of cost 4", text, err)
	}
	if err := m.findInFiles("alice1"); err != nil {
		t.Error(err)
	}
}

// locker locks in the background.
func (m *testMember) locker(ctx context.Context, lease int64) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := v3lockpb.NewLockClient(m.conn).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("k/lock"), Lease: lease})
		done <- err
	}()
	return done
}

// waitKeys waits until there are n keys in the queue of the lock.
func (m *testMember) waitKeys(n int64) {
	m.t.Helper()
	stream, err := pb.NewWatchClient(m.conn).Watch(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("k/lock/"), RangeEnd: []byte("k/lock0")}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		m.t.Fatal(err)
	}
	for {
		must[*pb.WatchResponse](m.t)(stream.Recv()) // created, then an event for each change
		r := must[*pb.RangeResponse](m.t)(pb.NewKVClient(m.conn).Range(m.ctx, &pb.RangeRequest{Key: create.Key, RangeEnd: create.RangeEnd, CountOnly: true}))
		if r.Count == n {
			return
		}
	}
}

func (m *testMember) lease() int64 {
	m.t.Helper()
	return must[*pb.LeaseGrantResponse](m.t)(pb.NewLeaseClient(m.conn).LeaseGrant(m.ctx, &pb.LeaseGrantRequest{TTL: 600})).ID
}

func received(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(testWait):
		t.Fatal("still waiting")
		return nil
	}
}

// If this fails, two clients hold one lock, a lock stays with those who are
// gone, or clients wait in the wrong order.
func TestLockQueue(t *testing.T) {
	m := startMember(t, nil)
	first, second, third := m.lease(), m.lease(), m.lease()
	wantCode(t, "free lock", received(t, m.locker(m.ctx, first)), codes.OK, "")
	wantCode(t, "own lock", received(t, m.locker(m.ctx, first)), codes.OK, "")

	waiting := m.locker(m.ctx, second)
	m.waitKeys(2)
	ctx, cancel := context.WithCancel(m.ctx)
	canceled := m.locker(ctx, third)
	m.waitKeys(3)
	cancel()
	if err := received(t, canceled); status.Code(err) != codes.Canceled {
		t.Errorf("canceled: %v", err)
	}
	m.waitKeys(2) // who no longer waits has left the queue
	select {
	case err := <-waiting:
		t.Errorf("two hold the lock: %v", err)
	default:
	}
	unlock := &v3lockpb.UnlockRequest{Key: fmt.Appendf(nil, "k/lock/%x", first)}
	must[*v3lockpb.UnlockResponse](t)(v3lockpb.NewLockClient(m.conn).Unlock(m.ctx, unlock))
	wantCode(t, "after unlock", received(t, waiting), codes.OK, "")

	lost := m.locker(m.ctx, third)
	m.waitKeys(2)
	must[*pb.LeaseRevokeResponse](t)(pb.NewLeaseClient(m.conn).LeaseRevoke(m.ctx, &pb.LeaseRevokeRequest{ID: third}))
	wantCode(t, "lease ended while waiting", received(t, lost), codes.Unknown, noSession)
}

// If this fails, who lost a right while waiting for a lock gets it all the same.
func TestLockIsDeniedWhileWaiting(t *testing.T) {
	m := startMember(t, nil)
	first, second := m.lease(), m.lease()
	wantCode(t, "free lock", received(t, m.locker(m.ctx, first)), codes.OK, "")
	enableAuth(t, m)
	root, alice := m.as("root", "root1"), m.as("alice", "alice1")
	events := must[pb.Watch_WatchClient](t)(pb.NewWatchClient(m.conn).Watch(root))
	create := &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "k/lock/%x", second)}
	if err := events.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	must[*pb.WatchResponse](t)(events.Recv())
	waiting := m.locker(alice, second)
	must[*pb.WatchResponse](t)(events.Recv()) // its key is there
	must[*pb.AuthUserRevokeRoleResponse](t)(pb.NewAuthClient(m.conn).UserRevokeRole(root, &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "keys"}))
	unlock := &v3lockpb.UnlockRequest{Key: fmt.Appendf(nil, "k/lock/%x", first)}
	must[*v3lockpb.UnlockResponse](t)(v3lockpb.NewLockClient(m.conn).Unlock(root, unlock))
	wantCode(t, "lock after the right is gone", received(t, waiting), codes.Unknown, denied)
}

// If this fails, an observer of an election misses a leader or what it says, or
// goes on seeing it without the right to.
func TestElectionObserver(t *testing.T) {
	m := startMember(t, nil)
	enableAuth(t, m)
	root, alice := m.as("root", "root1"), m.as("alice", "alice1")
	election := v3electionpb.NewElectionClient(m.conn)
	observe := must[v3electionpb.Election_ObserveClient](t)(election.Observe(alice, &v3electionpb.LeaderRequest{Name: []byte("k/vote")}))
	var said []string
	next := func() {
		t.Helper()
		r := must[*v3electionpb.LeaderResponse](t)(observe.Recv())
		said = append(said, fmt.Sprintf("%s@%d", r.Kv.Value, r.Header.Revision))
	}
	campaign := func(value string) *v3electionpb.CampaignResponse {
		t.Helper()
		return must[*v3electionpb.CampaignResponse](t)(election.Campaign(root, &v3electionpb.CampaignRequest{Name: []byte("k/vote"), Value: []byte(value)}))
	}
	first := campaign("one") // revision 2
	for _, value := range []string{"two", "three"} {
		must[*v3electionpb.ProclaimResponse](t)(election.Proclaim(root, &v3electionpb.ProclaimRequest{Leader: first.Leader, Value: []byte(value)}))
	}
	must[*v3electionpb.ResignResponse](t)(election.Resign(root, &v3electionpb.ResignRequest{Leader: first.Leader}))
	campaign("four") // revision 6
	for len(said) == 0 || !strings.HasPrefix(said[len(said)-1], "four") {
		next()
	}
	// The stream may have begun at any of them, but leaves none out after that.
	all := "one@2 two@3 three@4 four@6"
	if got := strings.Join(said, " "); !strings.HasSuffix(all, got) {
		t.Errorf("observed %s, want the end of %s", got, all)
	}
	must[*pb.AuthUserRevokeRoleResponse](t)(pb.NewAuthClient(m.conn).UserRevokeRole(root, &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "keys"}))
	must[*pb.DeleteRangeResponse](t)(pb.NewKVClient(m.conn).DeleteRange(root, &pb.DeleteRangeRequest{Key: []byte("k/vote/"), RangeEnd: []byte("k/vote0")}))
	campaign("five")
	r, err := observe.Recv()
	if errors.Is(err, io.EOF) || err == nil {
		t.Fatalf("observer without the right to saw %v, %v", r, err)
	}
	wantCode(t, "observer without the right to", err, codes.Unknown, denied)
}
