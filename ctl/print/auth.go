package print

import (
	"bytes"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Done shows an answer that says nothing but that it is done.
func (p *Printer) Done(r proto.Message, h *pb.ResponseHeader, text string, args ...any) error {
	return p.show(forms{
		simple: func() { p.line(text, args...) }, fields: func() { p.headerFields(h) }, json: r, proto: r,
	})
}

// AuthStatus shows whether authentication is on.
func (p *Printer) AuthStatus(r *pb.AuthStatusResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		p.line("Authentication Status: %v", r.Enabled)
		p.line("AuthRevision: %d", r.AuthRevision)
	}})
}

// UserGet shows the roles of a user.
func (p *Printer) UserGet(name string, r *pb.AuthUserGetResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		p.line("User: %s", name)
		p.line("Roles: %s", strings.Join(r.Roles, " "))
	}})
}

// UserList shows the users.
func (p *Printer) UserList(r *pb.AuthUserListResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		for _, u := range r.Users {
			p.line("%s", u)
		}
	}})
}

// RoleList shows the roles.
func (p *Printer) RoleList(r *pb.AuthRoleListResponse) error {
	return p.show(forms{
		json: r, proto: r,
		simple: func() {
			for _, name := range r.Roles {
				p.line("%s", name)
			}
		},
		fields: func() {
			p.headerFields(r.Header)
			_, _ = p.out.Write([]byte("\"Roles\" :"))
			for _, name := range r.Roles {
				_, _ = p.out.Write([]byte(" " + quoted([]byte(name))))
			}
			p.line("")
		},
	})
}

// RoleGet shows what a role permits.
func (p *Printer) RoleGet(name string, r *pb.AuthRoleGetResponse) error {
	return p.show(forms{
		json: r, proto: r,
		simple: func() {
			p.line("Role %s", name)
			if name == "root" && len(r.Perm) == 0 {
				p.line("KV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>")
				return
			}
			p.line("KV Read:")
			p.permissions(r.Perm, authpb.Permission_READ)
			p.line("KV Write:")
			p.permissions(r.Perm, authpb.Permission_WRITE)
		},
		fields: func() {
			p.headerFields(r.Header)
			for _, perm := range r.Perm {
				p.line("\"PermType\" :  %s", perm.PermType)
				p.field("Key", quoted(perm.Key))
				p.field("RangeEnd", quoted(perm.RangeEnd))
			}
		},
	})
}

func (p *Printer) permissions(all []*authpb.Permission, kind authpb.Permission_Type) {
	for _, perm := range all {
		if perm.PermType != kind && perm.PermType != authpb.Permission_READWRITE {
			continue
		}
		text := span(perm.Key, perm.RangeEnd)
		if len(perm.RangeEnd) > 0 && len(perm.Key) > 0 && string(perm.RangeEnd) != "\x00" &&
			bytes.Equal(perm.RangeEnd, client.PrefixEnd(perm.Key)) {
			text += " (prefix " + string(perm.Key) + ")"
		}
		p.line("\t%s", text)
	}
}

// span writes the keys that a permission is about.
func span(key, end []byte) string {
	switch {
	case len(end) == 0:
		return string(key)
	case string(end) == "\x00":
		return "[" + string(key) + ", <open ended>"
	}
	return "[" + string(key) + ", " + string(end) + ")"
}

// RevokePermission shows which keys a role lost.
func (p *Printer) RevokePermission(role string, key, end []byte, r *pb.AuthRoleRevokePermissionResponse) error {
	what := "key "
	if len(end) > 0 {
		what = "range "
	}
	return p.Done(r, r.Header, "Permission of %s%s is revoked from role %s", what, span(key, end), role)
}
