package state

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// The v2 API has no users and roles of its own: it shows and changes those of
// v3. A v2 role is what a role may do below v2keys.Prefix: the pattern /a is the
// one key of that node, the pattern /a* all keys that begin like it.

// guestRole is the role of v2 requests without a user name.
const guestRole = "guest"

// V2AuthKind says what is wrong with a change of users and roles.
type V2AuthKind uint8

// The kinds of V2AuthError.
const (
	V2AuthBad       V2AuthKind = iota + 1 // the request makes no sense
	V2AuthMissing                         // no such user or role
	V2AuthConflict                        // it is so already, or the other way round
	V2AuthForbidden                       // root must stay
)

// V2AuthError is a refusal in the words of the v2 API. Nothing has changed.
type V2AuthError struct {
	Kind V2AuthKind
	Text string
}

// Error is the text that clients are told.
func (e *V2AuthError) Error() string { return "auth: " + e.Text }

func v2Refusal(kind V2AuthKind, format string, args ...any) error {
	return &V2AuthError{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// V2Role is a role as the v2 API shows it; nil lists for a role that was never
// given any permission.
type V2Role struct {
	Name        string
	Read, Write []string // patterns, in order
}

// V2User is a user as the v2 API shows it.
type V2User struct {
	Name  string
	Roles []string
}

// changeV2Auth executes a change of users and roles. The response is a *V2User,
// a *V2Role or nil.
func (m *Machine) changeV2Auth(w *mvcc.Writer, r *pb.V2AuthRequest, res *Result) {
	switch r.Method {
	case pb.V2AuthRequest_ENABLE:
		res.Err = m.enableV2Auth(w)
	case pb.V2AuthRequest_DISABLE:
		if !m.auth.enabled {
			res.Err = v2Refusal(V2AuthConflict, "already disabled")
			return
		}
		m.disableAuth(w, res)
	case pb.V2AuthRequest_USER_CREATE:
		m.createV2User(w, r, res)
	case pb.V2AuthRequest_USER_UPDATE:
		m.updateV2User(w, r, res)
	case pb.V2AuthRequest_USER_DELETE:
		m.deleteV2User(w, r.Name, res)
	case pb.V2AuthRequest_ROLE_CREATE:
		m.createV2Role(w, r, res)
	case pb.V2AuthRequest_ROLE_UPDATE:
		m.updateV2Role(w, r, res)
	case pb.V2AuthRequest_ROLE_DELETE:
		m.deleteV2Role(w, r.Name, res)
	default:
		res.Err = fmt.Errorf("%w: v2 auth method %d", ErrMalformed, r.Method)
	}
}

// enableV2Auth makes sure that root can do everything, and that those without a
// name can do what they could, until somebody says otherwise.
func (m *Machine) enableV2Auth(w *mvcc.Writer) error {
	root, ok := m.auth.users[rootName]
	switch {
	case m.auth.enabled:
		return v2Refusal(V2AuthConflict, "already enabled")
	case !ok:
		return v2Refusal(V2AuthConflict, "No root user available, please create one")
	}
	if !root.root {
		m.setUserRoles(w, root.record, withRoles(root.record.Roles, rootName))
	}
	if _, ok := m.auth.roles[guestRole]; !ok {
		everything := []string{"/*"}
		m.setRole(w, &authpb.Role{Name: []byte(guestRole), KeyPermission: v2Permissions(nil, everything, everything)})
	}
	m.bumpAuthRevision(w)
	m.setAuthEnabled(w, true)
	return nil
}

func (m *Machine) createV2User(w *mvcc.Writer, r *pb.V2AuthRequest, res *Result) {
	if _, ok := m.auth.users[r.Name]; ok {
		res.Err = v2Refusal(V2AuthConflict, "User %s already exists.", r.Name)
		return
	}
	password, err := decodePassword("", r.HashedPassword, nil)
	switch {
	case err != nil:
		res.Err = err
		return
	case r.Name == "" || len(password) == 0:
		res.Err = v2Refusal(V2AuthBad, "Cannot create user %s with an empty password", r.Name)
		return
	}
	roles := withRoles(nil, r.Roles...)
	if r.Name == rootName {
		roles = withRoles(roles, rootName)
	}
	m.setUser(w, &authpb.User{Name: []byte(r.Name), Password: password, Roles: roles, Options: &authpb.UserAddOptions{}})
	m.bumpAuthRevision(w)
	res.Response = &V2User{Name: r.Name, Roles: roles}
}

func (m *Machine) updateV2User(w *mvcc.Writer, r *pb.V2AuthRequest, res *Result) {
	u, ok := m.auth.users[r.Name]
	if !ok {
		res.Err = v2Refusal(V2AuthMissing, "User %s does not exist.", r.Name)
		return
	}
	roles, err := v2Roles(u.record.Roles, r)
	if err != nil {
		res.Err = err
		return
	}
	password, err := decodePassword("", r.HashedPassword, nil)
	if err != nil {
		res.Err = err
		return
	}
	if len(password) == 0 && slices.Equal(roles, u.record.Roles) {
		res.Err = v2Refusal(V2AuthBad, "User not updated. Use grant/revoke/password to update the user.")
		return
	}
	record := &authpb.User{Name: u.record.Name, Password: u.record.Password, Roles: roles, Options: u.record.Options}
	if len(password) > 0 {
		record.Password, record.Options = password, &authpb.UserAddOptions{}
		res.Token = &TokenChange{Kind: UserTokensVoid, User: r.Name}
	}
	m.setUser(w, record)
	m.bumpAuthRevision(w)
	res.Response = &V2User{Name: r.Name, Roles: append([]string{}, roles...)}
}

// v2Roles are the roles of a user after a change.
func v2Roles(held []string, r *pb.V2AuthRequest) ([]string, error) {
	roles := slices.Clone(held)
	for _, role := range r.GrantRoles {
		if slices.Contains(roles, role) {
			return nil, v2Refusal(V2AuthConflict, "Granting duplicate role %s for user %s", role, r.Name)
		}
		roles = withRoles(roles, role)
	}
	for _, role := range r.RevokeRoles {
		at, ok := slices.BinarySearch(roles, role)
		if !ok {
			return nil, v2Refusal(V2AuthConflict, "Revoking ungranted role %s for user %s", role, r.Name)
		}
		roles = slices.Delete(roles, at, at+1)
	}
	if r.Name == rootName && len(r.GrantRoles) > 0 {
		roles = withRoles(roles, rootName)
	}
	return roles, nil
}

// withRoles adds roles to a sorted list, each once.
func withRoles(roles []string, more ...string) []string {
	all := append(slices.Clip(roles), more...)
	slices.Sort(all)
	return slices.Compact(all)
}

func (m *Machine) deleteV2User(w *mvcc.Writer, name string, res *Result) {
	switch _, ok := m.auth.users[name]; {
	case m.auth.enabled && name == rootName:
		res.Err = v2Refusal(V2AuthForbidden, "Cannot delete root user while auth is enabled.")
	case !ok:
		res.Err = v2Refusal(V2AuthMissing, "User %s does not exist", name)
	default:
		m.deleteUser(w, name, res)
		res.Response = nil
	}
}

func (m *Machine) createV2Role(w *mvcc.Writer, r *pb.V2AuthRequest, res *Result) {
	if r.Name == rootName {
		res.Err = v2RootRole()
		return
	}
	if _, ok := m.auth.roles[r.Name]; ok || r.Name == "" {
		res.Err = v2Refusal(V2AuthConflict, "Role %s already exists.", r.Name)
		return
	}
	role := &authpb.Role{Name: []byte(r.Name), KeyPermission: v2Permissions(nil, r.Read, r.Write)}
	m.setRole(w, role)
	m.bumpAuthRevision(w)
	res.Response = v2RoleOf(role)
}

func v2RootRole() error {
	return v2Refusal(V2AuthForbidden, "Cannot modify role root: is root role.")
}

func (m *Machine) updateV2Role(w *mvcc.Writer, r *pb.V2AuthRequest, res *Result) {
	if r.Name == rootName {
		res.Err = v2RootRole()
		return
	}
	old, ok := m.auth.roles[r.Name]
	if !ok {
		res.Err = v2Refusal(V2AuthMissing, "Role %s does not exist.", r.Name)
		return
	}
	held := v2RoleOf(old)
	read, err := v2Patterns("read", held.Read, r.Read, r.RevokeRead)
	if err != nil {
		res.Err = err
		return
	}
	write, err := v2Patterns("write", held.Write, r.Write, r.RevokeWrite)
	if err != nil {
		res.Err = err
		return
	}
	if slices.Equal(read, held.Read) && slices.Equal(write, held.Write) {
		res.Err = v2Refusal(V2AuthBad, "Role not updated. Use grant/revoke to update the role.")
		return
	}
	role := &authpb.Role{Name: old.Name, KeyPermission: v2Permissions(old.KeyPermission, read, write)}
	m.setRole(w, role)
	m.bumpAuthRevision(w)
	view := v2RoleOf(role)
	view.Read, view.Write = append([]string{}, view.Read...), append([]string{}, view.Write...)
	res.Response = view
}

// v2Patterns are the patterns of a role after a change. To revoke what is not
// held is no error of its own.
func v2Patterns(kind string, held, grant, revoke []string) ([]string, error) {
	all := slices.Clone(held)
	for _, p := range grant {
		if slices.Contains(all, p) {
			return nil, v2Refusal(V2AuthConflict, "Granting duplicate %s permission %s", kind, p)
		}
		all = append(all, p)
	}
	all = slices.DeleteFunc(all, func(p string) bool { return slices.Contains(revoke, p) })
	slices.Sort(all)
	return all, nil
}

func (m *Machine) deleteV2Role(w *mvcc.Writer, name string, res *Result) {
	switch _, ok := m.auth.roles[name]; {
	case name == rootName:
		res.Err = v2RootRole()
	case !ok:
		res.Err = v2Refusal(V2AuthMissing, "Role %s doesn't exist.", name)
	default:
		m.deleteRole(w, name, res)
		res.Response = nil
	}
}

// v2Permissions are the permissions of a role, those on keys that are not v2's
// as they were. Invariant: in order of their ranges, as v3's grants keep them.
func v2Permissions(old []*authpb.Permission, read, write []string) []*authpb.Permission {
	all := slices.DeleteFunc(slices.Clone(old), isV2Permission)
	for _, p := range withRoles(read, write...) {
		key, end := v2Range(p)
		kind := authpb.Permission_READWRITE
		switch {
		case !slices.Contains(write, p):
			kind = authpb.Permission_READ
		case !slices.Contains(read, p):
			kind = authpb.Permission_WRITE
		}
		all = append(all, &authpb.Permission{PermType: kind, Key: key, RangeEnd: end})
	}
	slices.SortStableFunc(all, func(a, b *authpb.Permission) int {
		return cmp.Or(bytes.Compare(a.Key, b.Key), bytes.Compare(a.RangeEnd, b.RangeEnd))
	})
	return all
}

// v2Range is the range of keys that a pattern stands for.
func v2Range(pattern string) (key, end []byte) {
	prefix, wild := strings.CutSuffix(pattern, "*")
	key = []byte(v2keys.Prefix + prefix)
	if !wild {
		return key, nil
	}
	return key, afterPrefix(key)
}

// afterPrefix is the first key behind all that begin with a prefix. v2keys.Prefix
// has bytes that can be counted up, so there always is one.
func afterPrefix(prefix []byte) []byte {
	end := bytes.TrimRight(prefix, "\xff")
	end = bytes.Clone(end)
	end[len(end)-1]++
	return end
}

// isV2Permission reports whether a permission is one that v2 shows.
func isV2Permission(p *authpb.Permission) bool {
	_, ok := v2Pattern(p)
	return ok
}

// v2Pattern is the pattern that a permission stands for.
func v2Pattern(p *authpb.Permission) (string, bool) {
	if !v2keys.IsKey(p.Key) {
		return "", false
	}
	path := string(p.Key[len(v2keys.Prefix):])
	switch {
	case len(p.RangeEnd) == 0:
		return path, true
	case bytes.Equal(p.RangeEnd, afterPrefix(p.Key)):
		return path + "*", true
	}
	return "", false
}

// v2RoleOf is what v2 shows of a role.
func v2RoleOf(role *authpb.Role) *V2Role {
	v := &V2Role{Name: string(role.Name)}
	if v.Name == rootName {
		v.Read, v.Write = []string{"/*"}, []string{"/*"}
		return v
	}
	for _, p := range role.KeyPermission {
		pattern, ok := v2Pattern(p)
		if !ok {
			continue
		}
		if p.PermType != authpb.Permission_WRITE {
			v.Read = append(v.Read, pattern)
		}
		if p.PermType != authpb.Permission_READ {
			v.Write = append(v.Write, pattern)
		}
	}
	slices.Sort(v.Read)
	slices.Sort(v.Write)
	return v
}

// V2Role returns a role as v2 shows it. The role root is always there.
func (m *Machine) V2Role(name string) (*V2Role, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	role, ok := m.auth.roles[name]
	if name == rootName {
		return v2RoleOf(&authpb.Role{Name: []byte(rootName)}), true
	}
	if !ok {
		return nil, false
	}
	return v2RoleOf(role), true
}

// V2Roles returns all roles as v2 shows them, the role root among them, in order.
func (m *Machine) V2Roles() []*V2Role {
	var all []*V2Role
	for _, name := range withRoles(m.Roles(), rootName) {
		if role, ok := m.V2Role(name); ok {
			all = append(all, role)
		}
	}
	return all
}
