package ctl

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newAuth(a *app) *cobra.Command {
	enable := &cobra.Command{
		Use: "enable", Short: "Enables authentication", Example: "  " + a.name + " auth enable",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArgs("auth enable command does not accept any arguments")
			}
			return a.online(func(c command) error {
				if err := c.enableAuth(); err != nil {
					return err
				}
				a.printf("Authentication Enabled\n")
				return nil
			})
		},
	}
	disable := &cobra.Command{
		Use: "disable", Short: "Disables authentication", Example: "  " + a.name + " --user root auth disable",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArgs("auth disable command does not accept any arguments")
			}
			return a.online(func(c command) error {
				if _, err := c.Auth.AuthDisable(c.ctx, &pb.AuthDisableRequest{}); err != nil {
					return err
				}
				a.printf("Authentication Disabled\n")
				return nil
			})
		},
	}
	status := &cobra.Command{
		Use: "status", Short: "Returns authentication status", Example: "  " + a.name + " auth status",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArgs("auth status command does not accept any arguments")
			}
			return a.online(func(c command) error {
				r, err := c.Auth.AuthStatus(c.ctx, &pb.AuthStatusRequest{})
				if err != nil {
					return err
				}
				return c.Printer.AuthStatus(r)
			})
		},
	}
	return group("auth", "Enable or disable authentication", disable, enable, status)
}

// enableAuth gives root the role root when that is what is missing.
func (c command) enableAuth() error {
	_, err := c.Auth.AuthEnable(c.ctx, &pb.AuthEnableRequest{})
	if !errors.Is(err, client.ErrRootRoleMissing) {
		return err
	}
	_, err = c.Auth.RoleAdd(c.ctx, &pb.AuthRoleAddRequest{Name: "root"})
	if err != nil && err.Error() != "etcdserver: role name already exists" {
		return err
	}
	if _, err = c.Auth.UserGrantRole(c.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}); err != nil {
		return err
	}
	_, err = c.Auth.AuthEnable(c.ctx, &pb.AuthEnableRequest{})
	return err
}
