package ctl

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newAuth(a *app) *cobra.Command {
	return group("auth", "Ask clients for a user name and a password, or stop asking",
		newAuthVerb(a, "disable", "Let everyone do everything", command.disableAuth),
		newAuthVerb(a, "enable", "Let users do only what their roles allow; needs a user root", command.enableAuth),
		newAuthVerb(a, "status", "Tell whether it is on", command.showAuth))
}

func newAuthVerb(a *app, verb, short string, run func(command) error) *cobra.Command {
	return &cobra.Command{
		Use: verb, Short: short, Example: "  " + a.name + " auth " + verb,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArgs("auth %s command does not accept any arguments", verb)
			}
			return a.online(run)
		},
	}
}

func (c command) disableAuth() error {
	if _, err := c.Auth.AuthDisable(c.ctx, &pb.AuthDisableRequest{}); err != nil {
		return err
	}
	c.printf("Authentication Disabled\n")
	return nil
}

func (c command) showAuth() error {
	r, err := c.Auth.AuthStatus(c.ctx, &pb.AuthStatusRequest{})
	if err != nil {
		return err
	}
	return c.Printer.AuthStatus(r)
}

// enableAuth gives root the role root when that is what is missing.
func (c command) enableAuth() error {
	_, err := c.Auth.AuthEnable(c.ctx, &pb.AuthEnableRequest{})
	if errors.Is(err, client.ErrRootRoleMissing) {
		if err = c.giveRootRole(); err == nil {
			_, err = c.Auth.AuthEnable(c.ctx, &pb.AuthEnableRequest{})
		}
	}
	if err != nil {
		return err
	}
	c.printf("Authentication Enabled\n")
	return nil
}

func (c command) giveRootRole() error {
	_, err := c.Auth.RoleAdd(c.ctx, &pb.AuthRoleAddRequest{Name: "root"})
	if err != nil && err.Error() != "etcdserver: role name already exists" {
		return err
	}
	_, err = c.Auth.UserGrantRole(c.ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	return err
}
