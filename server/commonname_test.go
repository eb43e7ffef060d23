package server

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a client certificate is no login, or one user's certificate
// opens another's keys.
func TestCertificateIsALogin(t *testing.T) {
	c := newCerts(t)
	m := startTLSMember(t, func(cfg *Config) { cfg.ClientTLS, cfg.BcryptCost = c.mutual(), 4 })
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	root := newClient(t, c.dialer("root", c.ca, c.ca), m.testEndpoint())
	enableFor(ctx, t, root, "alice", "a")
	alice := newClient(t, c.dialer("alice", c.ca, c.ca), m.testEndpoint())
	if err := putOver(ctx, alice, "a"); err != nil {
		t.Errorf("alice's own key: %v", err)
	}
	if err := putOver(ctx, alice, "b"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another key: %v, want PermissionDenied", err)
	}
	if err := putOver(ctx, newClient(t, c.dialer("nobody", c.ca, c.ca), m.testEndpoint()), "a"); err == nil {
		t.Error("a certificate of no user opens a key")
	}
	if err := putOver(ctx, root, "b"); err != nil {
		t.Errorf("root: %v", err)
	}
}

// enableFor turns authentication on with a user root and one that may write a
// key.
func enableFor(ctx context.Context, t *testing.T, root *client.Client, user, key string) {
	t.Helper()
	for _, step := range []func() error{
		func() error {
			_, err := root.Auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Options: &authpb.UserAddOptions{NoPassword: true}})
			return err
		},
		func() error {
			_, err := root.Auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
			return err
		},
		func() error {
			_, err := root.Auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: user, Options: &authpb.UserAddOptions{NoPassword: true}})
			return err
		},
		func() error { _, err := root.Auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "r"}); return err },
		func() error {
			p := &authpb.Permission{PermType: authpb.Permission_WRITE, Key: []byte(key)}
			_, err := root.Auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: p})
			return err
		},
		func() error {
			_, err := root.Auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: user, Role: "r"})
			return err
		},
		func() error { _, err := root.Auth.AuthEnable(ctx, &pb.AuthEnableRequest{}); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}
