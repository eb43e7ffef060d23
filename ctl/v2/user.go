package v2

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"slices"
	"strings"
)

const usersPath = "/v2/auth/users"

// userChange is the body of a change of a user. Nil roles say null, as etcdctl
// does.
type userChange struct {
	User     string   `json:"user"`
	Password string   `json:"password,omitempty"`
	Roles    []string `json:"roles"`
	Grant    []string `json:"grant,omitempty"`
	Revoke   []string `json:"revoke,omitempty"`
}

func newUser() *command {
	return &command{
		name: "user", short: "Add, change and remove users", group: groupAuth,
		sub: []*command{newUserAdd(), newUserGet(), newUserList(), newUserRemove(), newUserGrant(), newUserRevoke(), newUserPasswd()},
	}
}

// named is a command with one name as its argument.
func named(what string, run func(t *tool, ctx context.Context, c *client, name string) error) func(*tool, []string) error {
	return func(t *tool, args []string) error {
		if len(args) != 1 {
			return badArgs("Please provide a %s", what)
		}
		return t.authOnline(func(ctx context.Context, c *client) error { return run(t, ctx, c, args[0]) })
	}
}

const userName = "username"

func userPath(name string) string { return usersPath + "/" + name }

func (c *client) putUser(ctx context.Context, u userChange) error {
	return c.call(ctx, http.MethodPut, userPath(u.User), u, nil, done, created)
}

func newUserAdd() *command {
	return &command{
		name: "add", args: "<user>[:<password>]", short: "Add a user; the password is asked for", example: "user add alice",
		run: named(userName, func(t *tool, ctx context.Context, c *client, arg string) error {
			name, password, given := strings.Cut(arg, ":")
			if name == "" {
				return errors.New("Please provide a username")
			}
			if !given {
				var err error
				if password, err = t.askPassword("New password: "); err != nil {
					return err
				}
			}
			if err := c.putUser(ctx, userChange{User: name, Password: password}); err != nil {
				return err
			}
			t.printf("User %s created\n", name)
			return nil
		}),
	}
}

func newUserGet() *command {
	return &command{
		name: "get", args: "<user>", short: "Show the roles of a user", example: "user get alice",
		run: named(userName, func(t *tool, ctx context.Context, c *client, name string) error {
			var u struct {
				User  string
				Roles []struct{ Role string }
			}
			if err := c.call(ctx, http.MethodGet, userPath(name), nil, &u, done); err != nil {
				return err
			}
			// As many spaces as roles: scripts cut the line as etcdctl prints it.
			t.printf("User: %s\nRoles: %s", u.User, strings.Repeat(" ", max(0, len(u.Roles)-1)))
			for _, r := range u.Roles {
				t.printf(" %s", r.Role)
			}
			t.printf("\n")
			return nil
		}),
	}
}

func newUserList() *command {
	return &command{
		name: "list", short: "List the users", example: "user list",
		run: func(t *tool, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			return t.authOnline(func(ctx context.Context, c *client) error {
				var all struct{ Users []struct{ User string } }
				if err := c.call(ctx, http.MethodGet, usersPath, nil, &all, done); err != nil {
					return err
				}
				for _, u := range all.Users {
					t.printf("%s\n", u.User)
				}
				return nil
			})
		},
	}
}

func newUserRemove() *command {
	return &command{
		name: "remove", args: "<user>", short: "Remove a user", example: "user remove alice",
		run: named(userName, func(t *tool, ctx context.Context, c *client, name string) error {
			if err := c.call(ctx, http.MethodDelete, userPath(name), nil, nil, done); err != nil {
				return err
			}
			t.printf("User %s removed\n", name)
			return nil
		}),
	}
}

func newUserGrant() *command {
	return userRole("grant", "Give a user a role", func(name, role string) userChange { return userChange{User: name, Grant: []string{role}} })
}

func newUserRevoke() *command {
	return userRole("revoke", "Take a role from a user", func(name, role string) userChange { return userChange{User: name, Revoke: []string{role}} })
}

func userRole(name, short string, change func(user, role string) userChange) *command {
	var role string
	return &command{
		name: name, args: "<user>", short: short, example: "user " + name + " --roles readers alice",
		flags: func(f *flag.FlagSet) {
			f.StringVar(&role, "roles", "", "the `role`; commas are part of the name, as with etcdctl")
		},
		run: func(t *tool, args []string) error {
			if role == "" {
				return badArgs("No roles specified; please use `--roles`")
			}
			return named(userName, func(t *tool, ctx context.Context, c *client, user string) error {
				if err := c.putUser(ctx, change(user, role)); err != nil {
					return err
				}
				t.printf("User %s updated\n", user)
				return nil
			})(t, args)
		},
	}
}

func newUserPasswd() *command {
	return &command{
		name: "passwd", args: "<user>", short: "Set the password of a user; it is asked for", example: "user passwd alice",
		run: named(userName, func(t *tool, ctx context.Context, c *client, name string) error {
			password, err := t.askPassword("New password: ")
			if err != nil {
				return err
			}
			// A PUT would make a user that does not exist.
			if err := c.mustExist(ctx, name); err != nil {
				return err
			}
			if err := c.putUser(ctx, userChange{User: name, Password: password}); err != nil {
				return err
			}
			t.printf("Password updated\n")
			return nil
		}),
	}
}

func (c *client) mustExist(ctx context.Context, user string) error {
	var all struct{ Users []struct{ User string } }
	if err := c.call(ctx, http.MethodGet, usersPath, nil, &all, done); err != nil {
		return err
	}
	if !slices.ContainsFunc(all.Users, func(u struct{ User string }) bool { return u.User == user }) {
		return errors.New("auth: User " + user + " does not exist.")
	}
	return nil
}
