package state

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/kvorum/kvorum/internal/must"
	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// RootUser is the user that may do everything, and in whose name the member
// itself revokes leases.
const RootUser = rootName

// rootName is the name of that user and of the role that makes it so.
const rootName = "root"

// Keys in the bucket auth.
const (
	authEnabledKey  = "authEnabled"
	authRevisionKey = "authRevision"
)

// firstAuthRevision is the auth revision of a store that has none written.
const firstAuthRevision = 1

// TokenChangeKind says what happens to simple tokens.
type TokenChangeKind uint8

// The kinds of TokenChange.
const (
	TokenAssigned   TokenChangeKind = iota + 1 // Token now stands for User
	UserTokensVoid                             // all tokens of User
	EveryTokensVoid                            // all tokens
)

// TokenChange is what a command does to simple tokens. They live in the memory
// of the caller, since they run out with time and end with the process.
type TokenChange struct {
	Kind        TokenChangeKind
	User, Token string
}

// user is a user as stored, with what its roles allow worked out. It is never
// changed, only replaced.
type user struct {
	record      *authpb.User
	root        bool
	read, write rangeSet
}

// auth are the users and roles.
type auth struct {
	enabled  bool
	revision uint64
	users    map[string]*user
	roles    map[string]*authpb.Role // never changed, only replaced
}

// AuthStatus is the state of authentication.
type AuthStatus struct {
	Enabled bool
	// Revision grows with every change of users, roles and permissions.
	Revision uint64
}

func loadAuth(store *mvcc.Store) (auth, error) {
	a := auth{revision: firstAuthRevision}
	err := store.Load(mvcc.BucketAuth, func(k, v []byte) error {
		switch string(k) {
		case authEnabledKey:
			a.enabled = len(v) == 1 && v[0] == 1
		case authRevisionKey:
			if len(v) != 8 {
				return fmt.Errorf("%s has %d bytes", k, len(v))
			}
			a.revision = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	if err != nil {
		return a, fmt.Errorf("load auth: %w", err)
	}
	if a.roles, err = loadRoles(store); err != nil {
		return a, err
	}
	a.users, err = loadUsers(store, a.roles)
	return a, err
}

func loadRoles(store *mvcc.Store) (map[string]*authpb.Role, error) {
	roles := map[string]*authpb.Role{}
	err := store.Load(mvcc.BucketAuthRoles, func(k, v []byte) error {
		role := &authpb.Role{}
		if err := role.UnmarshalVT(v); err != nil {
			return fmt.Errorf("role %q: %w", k, err)
		}
		roles[string(k)] = role
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load roles: %w", err)
	}
	return roles, nil
}

func loadUsers(store *mvcc.Store, roles map[string]*authpb.Role) (map[string]*user, error) {
	users := map[string]*user{}
	err := store.Load(mvcc.BucketAuthUsers, func(k, v []byte) error {
		record := &authpb.User{}
		if err := record.UnmarshalVT(v); err != nil {
			return fmt.Errorf("user %q: %w", k, err)
		}
		users[string(k)] = newUser(record, roles)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load users: %w", err)
	}
	return users, nil
}

// newUser works out what the roles of a user allow. Roles that do not exist
// allow nothing, except root.
func newUser(record *authpb.User, roles map[string]*authpb.Role) *user {
	u := &user{record: record}
	var read, write []keyRange
	for _, name := range record.Roles {
		if name == rootName {
			u.root = true
		}
		for _, p := range roles[name].GetKeyPermission() {
			r := rangeOf(p.Key, p.RangeEnd)
			// A type that does not exist is stored, as etcd does, and allows nothing.
			if p.PermType == authpb.Permission_READ || p.PermType == authpb.Permission_READWRITE {
				read = append(read, r)
			}
			if p.PermType == authpb.Permission_WRITE || p.PermType == authpb.Permission_READWRITE {
				write = append(write, r)
			}
		}
	}
	u.read, u.write = mergeRanges(read), mergeRanges(write)
	return u
}

// noPassword reports whether the user can only be known by a certificate.
func (u *user) noPassword() bool { return u.record.GetOptions().GetNoPassword() }

// bumpAuthRevision notes that users, roles or permissions have changed.
func (m *Machine) bumpAuthRevision(w *mvcc.Writer) {
	revision := m.auth.revision + 1
	w.Set(mvcc.BucketAuth, []byte(authRevisionKey), binary.BigEndian.AppendUint64(nil, revision))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.auth.revision = revision
}

func (m *Machine) setAuthEnabled(w *mvcc.Writer, on bool) {
	value := []byte{0}
	if on {
		value[0] = 1
	}
	w.Set(mvcc.BucketAuth, []byte(authEnabledKey), value)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.auth.enabled = on
	m.authOn.Store(on)
}

func (m *Machine) enableAuth(w *mvcc.Writer, res *Result) {
	if !m.auth.enabled {
		root, ok := m.auth.users[rootName]
		switch {
		case !ok:
			res.Err = ErrRootUserNotExist
			return
		case !root.root:
			res.Err = ErrRootRoleNotGranted
			return
		}
		m.setAuthEnabled(w, true)
	}
	res.Response = &pb.AuthEnableResponse{Header: header(w)}
}

func (m *Machine) disableAuth(w *mvcc.Writer, res *Result) {
	if m.auth.enabled {
		m.setAuthEnabled(w, false)
		m.bumpAuthRevision(w)
		res.Token = &TokenChange{Kind: EveryTokensVoid}
	}
	res.Response = &pb.AuthDisableResponse{Header: header(w)}
}

// authenticate makes a login's token known on every member. The password was
// checked before the command was proposed. A simple token is the proposed
// random part and the index of this entry; without a random part (signed
// tokens) the caller makes the token and none is kept.
func (m *Machine) authenticate(w *mvcc.Writer, at mvcc.Applied, r *pb.InternalAuthenticateRequest, res *Result) {
	u, ok := m.auth.users[r.Name]
	switch {
	case !m.auth.enabled:
		res.Err = ErrAuthNotEnabled
	case !ok:
		res.Err = ErrAuthFailed
	case u.noPassword():
		res.Err = ErrNoPasswordUser
	}
	if res.Err != nil {
		return
	}
	resp := &pb.AuthenticateResponse{Header: header(w)}
	if r.SimpleToken != "" {
		resp.Token = r.SimpleToken + "." + strconv.FormatUint(at.Index, 10)
		res.Token = &TokenChange{Kind: TokenAssigned, User: r.Name, Token: resp.Token}
	}
	res.Response = resp
}

// setUser stores a user and counts the change.
func (m *Machine) setUser(w *mvcc.Writer, record *authpb.User) {
	value, err := record.MarshalVT()
	must.NoError(err, "encode a user")
	w.Set(mvcc.BucketAuthUsers, record.Name, value)
	u := newUser(record, m.auth.roles)
	m.mu.Lock()
	m.auth.users[string(record.Name)] = u
	m.mu.Unlock()
}

// decodePassword returns the password's bcrypt text from a command.
func decodePassword(password, hashed string, options *authpb.UserAddOptions) ([]byte, error) {
	if options.GetNoPassword() {
		return nil, nil
	}
	if password != "" && hashed == "" {
		return nil, fmt.Errorf("%w: a password that was not hashed (logs from before version 3.5)", ErrMalformed)
	}
	text, err := base64.StdEncoding.DecodeString(hashed)
	if err != nil {
		return nil, fmt.Errorf("%w: hashed password: %w", ErrMalformed, err)
	}
	return text, nil
}

func (m *Machine) addUser(w *mvcc.Writer, r *pb.AuthUserAddRequest, res *Result) {
	if r.Name == "" {
		res.Err = ErrUserEmpty
		return
	}
	if _, ok := m.auth.users[r.Name]; ok {
		res.Err = ErrUserExists
		return
	}
	// Present in the record even if empty, as the format has it.
	options := &authpb.UserAddOptions{NoPassword: r.GetOptions().GetNoPassword()}
	password, err := decodePassword(r.Password, r.HashedPassword, options)
	if err != nil {
		res.Err = err
		return
	}
	m.setUser(w, &authpb.User{Name: []byte(r.Name), Password: password, Options: options})
	m.bumpAuthRevision(w)
	res.Response = &pb.AuthUserAddResponse{Header: header(w)}
}

func (m *Machine) deleteUser(w *mvcc.Writer, name string, res *Result) {
	if m.auth.enabled && name == rootName {
		res.Err = ErrInvalidAuthMgmt
		return
	}
	if _, ok := m.auth.users[name]; !ok {
		res.Err = ErrUserNotFound
		return
	}
	w.Delete(mvcc.BucketAuthUsers, []byte(name))
	m.mu.Lock()
	delete(m.auth.users, name)
	m.mu.Unlock()
	m.bumpAuthRevision(w)
	res.Token = &TokenChange{Kind: UserTokensVoid, User: name}
	res.Response = &pb.AuthUserDeleteResponse{Header: header(w)}
}

func (m *Machine) changePassword(w *mvcc.Writer, r *pb.AuthUserChangePasswordRequest, res *Result) {
	u, ok := m.auth.users[r.Name]
	if !ok {
		res.Err = ErrUserNotFound
		return
	}
	password, err := decodePassword(r.Password, r.HashedPassword, u.record.Options)
	if err != nil {
		res.Err = err
		return
	}
	m.setUser(w, &authpb.User{Name: u.record.Name, Password: password, Roles: u.record.Roles, Options: u.record.Options})
	m.bumpAuthRevision(w)
	res.Token = &TokenChange{Kind: UserTokensVoid, User: r.Name}
	res.Response = &pb.AuthUserChangePasswordResponse{Header: header(w)}
}

// setUserRoles stores a user with other roles.
func (m *Machine) setUserRoles(w *mvcc.Writer, record *authpb.User, roles []string) {
	m.setUser(w, &authpb.User{Name: record.Name, Password: record.Password, Roles: roles, Options: record.Options})
}

// grantRole gives a user a role. Granting it twice changes nothing and is no
// error; the role root need not exist.
func (m *Machine) grantRole(w *mvcc.Writer, r *pb.AuthUserGrantRoleRequest, res *Result) {
	u, ok := m.auth.users[r.User]
	if !ok {
		res.Err = ErrUserNotFound
		return
	}
	if _, ok := m.auth.roles[r.Role]; !ok && r.Role != rootName {
		res.Err = ErrRoleNotFound
		return
	}
	if at, held := slices.BinarySearch(u.record.Roles, r.Role); !held {
		m.setUserRoles(w, u.record, slices.Insert(slices.Clone(u.record.Roles), at, r.Role))
		m.bumpAuthRevision(w)
	}
	res.Response = &pb.AuthUserGrantRoleResponse{Header: header(w)}
}

func (m *Machine) revokeRole(w *mvcc.Writer, r *pb.AuthUserRevokeRoleRequest, res *Result) {
	if m.auth.enabled && r.Name == rootName && r.Role == rootName {
		res.Err = ErrInvalidAuthMgmt
		return
	}
	u, ok := m.auth.users[r.Name]
	if !ok {
		res.Err = ErrUserNotFound
		return
	}
	at, held := slices.BinarySearch(u.record.Roles, r.Role)
	if !held {
		res.Err = ErrRoleNotGranted
		return
	}
	m.setUserRoles(w, u.record, slices.Delete(slices.Clone(u.record.Roles), at, at+1))
	m.bumpAuthRevision(w)
	res.Response = &pb.AuthUserRevokeRoleResponse{Header: header(w)}
}

// setRole stores a role and works out anew what its users may do.
func (m *Machine) setRole(w *mvcc.Writer, role *authpb.Role) {
	value, err := role.MarshalVT()
	must.NoError(err, "encode a role")
	w.Set(mvcc.BucketAuthRoles, role.Name, value)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.auth.roles[string(role.Name)] = role
	for name, u := range m.auth.users {
		if slices.Contains(u.record.Roles, string(role.Name)) {
			m.auth.users[name] = newUser(u.record, m.auth.roles)
		}
	}
}

func (m *Machine) addRole(w *mvcc.Writer, name string, res *Result) {
	if name == "" {
		res.Err = ErrRoleEmpty
		return
	}
	if _, ok := m.auth.roles[name]; ok {
		res.Err = ErrRoleExists
		return
	}
	m.setRole(w, &authpb.Role{Name: []byte(name)})
	m.bumpAuthRevision(w)
	res.Response = &pb.AuthRoleAddResponse{Header: header(w)}
}

// deleteRole also takes the role from all users that hold it.
func (m *Machine) deleteRole(w *mvcc.Writer, name string, res *Result) {
	if m.auth.enabled && name == rootName {
		res.Err = ErrInvalidAuthMgmt
		return
	}
	if _, ok := m.auth.roles[name]; !ok {
		res.Err = ErrRoleNotFound
		return
	}
	w.Delete(mvcc.BucketAuthRoles, []byte(name))
	m.mu.Lock()
	delete(m.auth.roles, name)
	m.mu.Unlock()
	for _, userName := range slices.Sorted(maps.Keys(m.auth.users)) {
		record := m.auth.users[userName].record
		if at, held := slices.BinarySearch(record.Roles, name); held {
			m.setUserRoles(w, record, slices.Delete(slices.Clone(record.Roles), at, at+1))
		}
	}
	m.bumpAuthRevision(w)
	res.Response = &pb.AuthRoleDeleteResponse{Header: header(w)}
}

// grantPermission adds a permission to a role or, for a range that the role has
// already, replaces its type.
func (m *Machine) grantPermission(w *mvcc.Writer, r *pb.AuthRoleGrantPermissionRequest, res *Result) {
	switch {
	case r.Perm == nil:
		res.Err = ErrPermissionNotGiven
		return
	case !validRange(r.Perm.Key, r.Perm.RangeEnd):
		res.Err = ErrInvalidAuthMgmt
		return
	}
	role, ok := m.auth.roles[r.Name]
	if !ok {
		res.Err = ErrRoleNotFound
		return
	}
	permissions := slices.Clone(role.KeyPermission)
	granted := &authpb.Permission{PermType: r.Perm.PermType, Key: r.Perm.Key, RangeEnd: r.Perm.RangeEnd}
	byKey := func(a, b *authpb.Permission) int { return bytes.Compare(a.Key, b.Key) }
	// As in etcd, whose members apply the same entry: only the first permission with this key is looked at, so that one
	// on the same range behind it stays, and both count.
	at, found := slices.BinarySearchFunc(permissions, granted, byKey)
	if found && bytes.Equal(permissions[at].RangeEnd, granted.RangeEnd) {
		permissions[at] = granted
	} else {
		permissions = append(permissions, granted)
		slices.SortFunc(permissions, byKey)
	}
	m.setRole(w, &authpb.Role{Name: role.Name, KeyPermission: permissions})
	m.bumpAuthRevision(w)
	res.Response = &pb.AuthRoleGrantPermissionResponse{Header: header(w)}
}

// revokePermission takes every permission on exactly this range: there may be several (see grantPermission).
func (m *Machine) revokePermission(w *mvcc.Writer, r *pb.AuthRoleRevokePermissionRequest, res *Result) {
	role, ok := m.auth.roles[r.Role]
	if !ok {
		res.Err = ErrRoleNotFound
		return
	}
	permissions := slices.DeleteFunc(slices.Clone(role.KeyPermission), func(p *authpb.Permission) bool {
		return bytes.Equal(p.Key, r.Key) && bytes.Equal(p.RangeEnd, r.RangeEnd)
	})
	if len(permissions) == len(role.KeyPermission) {
		res.Err = ErrPermissionNotGranted
		return
	}
	m.setRole(w, &authpb.Role{Name: role.Name, KeyPermission: permissions})
	m.bumpAuthRevision(w)
	res.Response = &pb.AuthRoleRevokePermissionResponse{Header: header(w)}
}

func (a *auth) status() *pb.AuthStatusResponse {
	return &pb.AuthStatusResponse{Header: &pb.ResponseHeader{}, Enabled: a.enabled, AuthRevision: a.revision}
}

func (a *auth) userGet(name string) (*pb.AuthUserGetResponse, error) {
	u, ok := a.users[name]
	if !ok {
		return nil, ErrUserNotFound
	}
	return &pb.AuthUserGetResponse{Header: &pb.ResponseHeader{}, Roles: slices.Clone(u.record.Roles)}, nil
}

func (a *auth) userList() *pb.AuthUserListResponse {
	return &pb.AuthUserListResponse{Header: &pb.ResponseHeader{}, Users: slices.Sorted(maps.Keys(a.users))}
}

// roleGet shows the role root with the permission that it stands for.
func (a *auth) roleGet(name string) (*pb.AuthRoleGetResponse, error) {
	role, ok := a.roles[name]
	if !ok {
		return nil, ErrRoleNotFound
	}
	resp := &pb.AuthRoleGetResponse{Header: &pb.ResponseHeader{}}
	if name == rootName {
		resp.Perm = []*authpb.Permission{{PermType: authpb.Permission_READWRITE, RangeEnd: []byte{0}}}
		return resp, nil
	}
	resp.Perm = slices.Clone(role.KeyPermission)
	return resp, nil
}

func (a *auth) roleList() *pb.AuthRoleListResponse {
	return &pb.AuthRoleListResponse{Header: &pb.ResponseHeader{}, Roles: slices.Sorted(maps.Keys(a.roles))}
}

// AuthStatus returns whether auth is on, and its revision.
func (m *Machine) AuthStatus() AuthStatus {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return AuthStatus{Enabled: m.auth.enabled, Revision: m.auth.revision}
}

// AuthEnabled reports whether auth is on. It takes no lock.
func (m *Machine) AuthEnabled() bool { return m.authOn.Load() }

// Users returns the names of all users, sorted.
func (m *Machine) Users() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Sorted(maps.Keys(m.auth.users))
}

// User returns the roles of a user, sorted.
func (m *Machine) User(name string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	u, ok := m.auth.users[name]
	if !ok {
		return nil, ErrUserNotFound
	}
	return slices.Clone(u.record.Roles), nil
}

// Roles returns the names of all roles, sorted.
func (m *Machine) Roles() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Sorted(maps.Keys(m.auth.roles))
}

// Role returns the permissions of a role in order of their keys.
func (m *Machine) Role(name string) ([]*authpb.Permission, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	resp, err := m.auth.roleGet(name)
	if err != nil {
		return nil, err
	}
	return resp.Perm, nil
}

// PasswordHash returns the bcrypt text of a user's password and the auth
// revision that it belongs to: whoever compares the password, which is slow,
// proposes the login only if the revision has stayed. ErrAuthNotEnabled,
// ErrAuthFailed for an unknown user, ErrNoPasswordUser.
func (m *Machine) PasswordHash(name string) (hash []byte, revision uint64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	u, ok := m.auth.users[name]
	switch {
	case !m.auth.enabled:
		return nil, 0, ErrAuthNotEnabled
	case !ok:
		return nil, 0, ErrAuthFailed
	case u.noPassword():
		return nil, 0, ErrNoPasswordUser
	}
	return u.record.Password, m.auth.revision, nil
}
