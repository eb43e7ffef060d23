package ctl

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newUser(a *app) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "Lists all users", Example: "  " + a.name + " user list",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 {
				return badArgs("user list command requires no arguments")
			}
			return a.online(func(c command) error {
				r, err := c.Auth.UserList(c.ctx, &pb.AuthUserListRequest{})
				if err != nil {
					return err
				}
				return c.Printer.UserList(r)
			})
		},
	}
	remove := &cobra.Command{
		Use: "delete <user name>", Short: "Deletes a user", Example: "  " + a.name + " user delete alice",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("user delete command requires user name as its argument")
			}
			return a.online(func(c command) error {
				r, err := c.Auth.UserDelete(c.ctx, &pb.AuthUserDeleteRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.Printer.Done(r, r.Header, "User %s deleted", args[0])
			})
		},
	}
	grant := &cobra.Command{
		Use: "grant-role <user name> <role name>", Short: "Grants a role to a user", Example: "  " + a.name + " user grant-role alice reader",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return badArgs("user grant command requires user name and role name as its argument")
			}
			return a.online(func(c command) error {
				r, err := c.Auth.UserGrantRole(c.ctx, &pb.AuthUserGrantRoleRequest{User: args[0], Role: args[1]})
				if err != nil {
					return err
				}
				return c.Printer.Done(r, r.Header, "Role %s is granted to user %s", args[1], args[0])
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke-role <user name> <role name>", Short: "Revokes a role from a user", Example: "  " + a.name + " user revoke-role alice reader",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return badArgs("user revoke-role requires user name and role name as its argument")
			}
			return a.online(func(c command) error {
				r, err := c.Auth.UserRevokeRole(c.ctx, &pb.AuthUserRevokeRoleRequest{Name: args[0], Role: args[1]})
				if err != nil {
					return err
				}
				return c.Printer.Done(r, r.Header, "Role %s is revoked from user %s", args[1], args[0])
			})
		},
	}
	return group("user", "User related commands", newUserAdd(a), remove, newUserGet(a), grant, list, newUserPasswd(a), revoke)
}

// newPassword asks for a password twice, or reads one line.
func (a *app) newPassword(user string, interactive bool) (string, error) {
	if !interactive {
		return a.readLine()
	}
	first, err := a.askPassword("Password of " + user + ": ")
	if err != nil {
		return "", err
	}
	second, err := a.askPassword("Type password of " + user + " again for confirmation: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", badArgs("given passwords are different")
	}
	return first, nil
}

func newUserAdd(a *app) *cobra.Command {
	var interactive, none bool
	var given string
	c := &cobra.Command{
		Use: "add <user name or user:password> [options]", Short: "Adds a new user",
		Example: "  " + a.name + " user add alice\n  echo secret | " + a.name + " user add alice --interactive=false",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("user add command requires user name as its argument")
			}
			r := &pb.AuthUserAddRequest{Name: args[0], Options: &authpb.UserAddOptions{NoPassword: none}}
			name, password, found := strings.Cut(args[0], ":")
			switch {
			case none:
			case given != "":
				r.Password = given
			case found:
				if r.Name, r.Password = name, password; name == "" {
					return badArgs("empty user name is not allowed")
				}
			default:
				var err error
				if r.Password, err = a.newPassword(args[0], interactive); err != nil {
					return err
				}
			}
			return a.online(func(c command) error {
				answer, err := c.Auth.UserAdd(c.ctx, r)
				if err != nil {
					return err
				}
				return c.Printer.Done(answer, answer.Header, "User %s created", r.Name)
			})
		},
	}
	c.Flags().BoolVar(&interactive, "interactive", true, "Read password from stdin instead of interactive terminal")
	c.Flags().StringVar(&given, "new-user-password", "", "Supply password from the command line flag")
	c.Flags().BoolVar(&none, "no-password", false, "Create a user without password (CN based auth only)")
	return c
}

func newUserPasswd(a *app) *cobra.Command {
	var interactive bool
	c := &cobra.Command{
		Use: "passwd <user name> [options]", Short: "Changes password of user", Example: "  " + a.name + " user passwd alice",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("user passwd command requires user name as its argument")
			}
			password, err := a.newPassword(args[0], interactive)
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.Auth.UserChangePassword(c.ctx, &pb.AuthUserChangePasswordRequest{Name: args[0], Password: password})
				if err != nil {
					return err
				}
				return c.Printer.Done(r, r.Header, "Password updated")
			})
		},
	}
	c.Flags().BoolVar(&interactive, "interactive", true, "If true, read password from stdin instead of interactive terminal")
	return c
}

func newUserGet(a *app) *cobra.Command {
	var detail bool
	c := &cobra.Command{
		Use: "get <user name> [options]", Short: "Gets detailed information of a user", Example: "  " + a.name + " user get alice --detail",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("user get command requires user name as its argument")
			}
			return a.online(func(c command) error {
				r, err := c.Auth.UserGet(c.ctx, &pb.AuthUserGetRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if !detail {
					return c.Printer.UserGet(args[0], r)
				}
				a.printf("User: %s\n", args[0])
				for _, role := range r.Roles {
					a.printf("\n")
					rr, err := c.Auth.RoleGet(c.ctx, &pb.AuthRoleGetRequest{Role: role})
					if err != nil {
						return err
					}
					if err := c.Printer.RoleGet(role, rr); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&detail, "detail", false, "Show permissions of roles granted to the user")
	return c
}
