package api

import (
	"context"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api/token"
)

// AuthService serves etcdserverpb.Auth.
type AuthService struct {
	pb.UnimplementedAuthServer
	*Services
}

// Authenticate checks a password and gives out a token.
//
// The password is compared here, which is slow, and the login is a command of
// its own. If users changed in between, the password might be an old one, so
// the login only counts if the auth revision is still that of the comparison
// when the command has been applied.
func (a AuthService) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	response, err := a.login(ctx, r)
	if err != nil {
		return nil, a.errors.Status(err)
	}
	response.Header = a.own(response.Header)
	return response, nil
}

func (a AuthService) login(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	// A password that was changed at another member must be known here.
	if err := a.member.ReadBarrier(ctx); err != nil {
		return nil, err
	}
	for {
		text, revision, err := a.machine.PasswordHash(r.Name)
		if err != nil {
			return nil, err
		}
		if err := a.passwords.verify(ctx, text, r.Password); err != nil {
			return nil, err
		}
		if a.machine.AuthStatus().Revision != revision {
			continue
		}
		seed, err := a.auth.Tokens.Seed()
		if err != nil {
			return nil, err
		}
		login := &pb.InternalAuthenticateRequest{Name: r.Name, SimpleToken: seed}
		response, err := propose[*pb.AuthenticateResponse](ctx, a.Services, &pb.InternalRaftRequest{Authenticate: login})
		if err != nil {
			return nil, err
		}
		if a.machine.AuthStatus().Revision != revision {
			continue
		}
		response.Token, err = a.auth.Tokens.Make(token.Bearer{User: r.Name, Revision: revision}, response.Token)
		return response, err
	}
}

// AuthEnable switches auth on.
func (a AuthService) AuthEnable(ctx context.Context, r *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	response, err := propose[*pb.AuthEnableResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthEnable: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// AuthDisable switches auth off; all simple tokens end.
func (a AuthService) AuthDisable(ctx context.Context, r *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	response, err := propose[*pb.AuthDisableResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthDisable: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// AuthStatus tells whether auth is on, and its revision.
func (a AuthService) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	if err := a.member.ReadBarrier(ctx); err != nil {
		return nil, a.errors.Status(err)
	}
	now := a.machine.AuthStatus()
	return &pb.AuthStatusResponse{Header: a.current(), Enabled: now.Enabled, AuthRevision: now.Revision}, nil
}

// UserAdd makes a user. The password leaves this member only as a hash.
func (a AuthService) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	command := &pb.AuthUserAddRequest{Name: r.Name, Options: r.Options}
	if !r.GetOptions().GetNoPassword() {
		hashed, err := a.passwords.hash(ctx, r.Password)
		if err != nil {
			return nil, a.errors.Status(err)
		}
		command.HashedPassword = hashed
	}
	response, err := propose[*pb.AuthUserAddResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthUserAdd: command})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// UserGet tells a user's roles.
func (a AuthService) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	if err := a.member.ReadBarrier(ctx); err != nil {
		return nil, a.errors.Status(err)
	}
	roles, err := a.machine.User(r.Name)
	if err != nil {
		return nil, a.errors.Status(err)
	}
	return &pb.AuthUserGetResponse{Header: a.current(), Roles: roles}, nil
}

// UserList tells the names of all users.
func (a AuthService) UserList(ctx context.Context, _ *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	if err := a.member.ReadBarrier(ctx); err != nil {
		return nil, a.errors.Status(err)
	}
	return &pb.AuthUserListResponse{Header: a.current(), Users: a.machine.Users()}, nil
}

// UserDelete deletes a user, whose simple tokens end.
func (a AuthService) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	response, err := propose[*pb.AuthUserDeleteResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthUserDelete: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// UserChangePassword replaces a password; the user's simple tokens end.
func (a AuthService) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	hashed, err := a.passwords.hash(ctx, r.Password)
	if err != nil {
		return nil, a.errors.Status(err)
	}
	command := &pb.AuthUserChangePasswordRequest{Name: r.Name, HashedPassword: hashed}
	response, err := propose[*pb.AuthUserChangePasswordResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthUserChangePassword: command})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// UserGrantRole gives a user a role.
func (a AuthService) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	response, err := propose[*pb.AuthUserGrantRoleResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthUserGrantRole: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// UserRevokeRole takes a role from a user.
func (a AuthService) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	response, err := propose[*pb.AuthUserRevokeRoleResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthUserRevokeRole: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// RoleAdd makes a role.
func (a AuthService) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	response, err := propose[*pb.AuthRoleAddResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthRoleAdd: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// RoleGet tells a role's permissions.
func (a AuthService) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	if err := a.member.ReadBarrier(ctx); err != nil {
		return nil, a.errors.Status(err)
	}
	permissions, err := a.machine.Role(r.Role)
	if err != nil {
		return nil, a.errors.Status(err)
	}
	return &pb.AuthRoleGetResponse{Header: a.current(), Perm: permissions}, nil
}

// RoleList tells the names of all roles.
func (a AuthService) RoleList(ctx context.Context, _ *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	if err := a.member.ReadBarrier(ctx); err != nil {
		return nil, a.errors.Status(err)
	}
	return &pb.AuthRoleListResponse{Header: a.current(), Roles: a.machine.Roles()}, nil
}

// RoleDelete deletes a role and takes it from its users.
func (a AuthService) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	response, err := propose[*pb.AuthRoleDeleteResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthRoleDelete: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// RoleGrantPermission lets a role read or write a range of keys.
func (a AuthService) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	response, err := propose[*pb.AuthRoleGrantPermissionResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthRoleGrantPermission: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}

// RoleRevokePermission takes a permission from a role.
func (a AuthService) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	response, err := propose[*pb.AuthRoleRevokePermissionResponse](ctx, a.Services, &pb.InternalRaftRequest{AuthRoleRevokePermission: r})
	if err != nil {
		return nil, err
	}
	response.Header = a.own(response.Header)
	return response, nil
}
