package state

import (
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// CheckV2Read reports whether the caller may read a v2 node, or all that is
// below it too. With auth off it may.
func (m *Machine) CheckV2Read(c Caller, path string, recursive bool) error {
	if !m.AuthEnabled() {
		return nil
	}
	return m.check(func() error { return m.mayV2(c, toRead, path, recursive) })
}

// mayV2 is the permission check for v2 nodes: the ranges of the caller's roles,
// those of the role guest for a caller without a name.
func (m *Machine) mayV2(c Caller, a access, path string, recursive bool) error {
	u, err := m.v2UserOf(c)
	if err != nil {
		return err
	}
	set := u.read
	if a == toWrite {
		set = u.write
	}
	if u.root {
		return nil
	}
	key := v2keys.Key(path)
	end := ""
	if recursive {
		_, end = v2keys.Below(path)
	}
	if !set.allows([]byte(key), []byte(end)) {
		return ErrPermissionDenied
	}
	return nil
}

// v2UserOf is the caller's user; who has given no name is known by one role.
func (m *Machine) v2UserOf(c Caller) (*user, error) {
	if c.User != "" {
		return m.userOf(c)
	}
	return newUser(&authpb.User{Roles: []string{guestRole}}, m.auth.roles), nil
}

// permitV2 is the guard of a v2 command.
func (m *Machine) permitV2(c Caller, r *pb.V2Request) error {
	return m.mayV2(c, toWrite, r.Path, r.Recursive)
}
