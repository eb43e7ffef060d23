package ctl

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newUser(a *app) *cobra.Command {
	return group("user", "Say who may log in, and with which roles",
		newUserAdd(a), newUserDelete(a), newUserGet(a), newUserGrant(a), newUserList(a), newUserPasswd(a), newUserRevoke(a))
}

func newUserList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the users", Example: "  " + a.name + " user list",
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
}

func newUserDelete(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "delete <user>", Short: "Delete a user", Example: "  " + a.name + " user delete alice",
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
}

func newUserGrant(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "grant-role <user> <role>", Short: "Give a user a role", Example: "  " + a.name + " user grant-role alice reader",
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
}

func newUserRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke-role <user> <role>", Short: "Take a role from a user", Example: "  " + a.name + " user revoke-role alice reader",
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
}

// newPassword asks for a password twice, or reads one line.
func (a *app) newPassword(user string, interactive bool) (string, error) {
	if !interactive {
		return a.readLine()
	}
	if !isTerminal(a.Stdin) {
		return "", badArgs("no terminal to ask for the password: --interactive=false reads it from standard input")
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

// userAdd is what `user add` was told about the new user's password.
type userAdd struct {
	interactive, none bool
	password          string
}

func newUserAdd(a *app) *cobra.Command {
	var f userAdd
	c := &cobra.Command{
		Use: "add <user>[:<password>]", Short: "Add a user; ask for the password if none is given",
		Example: "  echo secret | " + a.name + " user add alice --interactive=false",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("user add command requires user name as its argument")
			}
			r, err := f.request(a, args[0])
			if err != nil {
				return err
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
	c.Flags().BoolVar(&f.interactive, "interactive", true, "ask at the terminal; false = read one line of standard input")
	c.Flags().StringVar(&f.password, "new-user-password", "", "password of the new user")
	c.Flags().BoolVar(&f.none, "no-password", false, "let the user in by certificate only (common name)")
	return c
}

// request asks for the password when nothing gives it.
func (f *userAdd) request(a *app, arg string) (*pb.AuthUserAddRequest, error) {
	r := &pb.AuthUserAddRequest{Name: arg, Options: &authpb.UserAddOptions{NoPassword: f.none}}
	if f.none {
		return r, nil
	}
	if f.password != "" {
		r.Password = f.password
		return r, nil
	}
	if name, password, found := strings.Cut(arg, ":"); found {
		if name == "" {
			return nil, badArgs("empty user name is not allowed")
		}
		r.Name, r.Password = name, password
		return r, nil
	}
	var err error
	r.Password, err = a.newPassword(arg, f.interactive)
	return r, err
}

func newUserPasswd(a *app) *cobra.Command {
	var interactive bool
	c := &cobra.Command{
		Use: "passwd <user>", Short: "Change the password of a user", Example: "  " + a.name + " user passwd alice",
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
	c.Flags().BoolVar(&interactive, "interactive", true, "ask at the terminal; false = read one line of standard input")
	return c
}

func newUserGet(a *app) *cobra.Command {
	var detail bool
	c := &cobra.Command{
		Use: "get <user>", Short: "Show the roles of a user", Example: "  " + a.name + " user get alice --detail",
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
	c.Flags().BoolVar(&detail, "detail", false, "also show what these roles allow")
	return c
}
