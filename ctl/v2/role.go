package v2

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
)

const rolesPath = "/v2/auth/roles"

type paths struct {
	Read  []string `json:"read"`
	Write []string `json:"write"`
}

type permissions struct {
	KV paths `json:"kv"`
}

type role struct {
	Role        string       `json:"role"`
	Permissions permissions  `json:"permissions"`
	Grant       *permissions `json:"grant,omitempty"`
	Revoke      *permissions `json:"revoke,omitempty"`
}

const roleName = "role name"

func rolePath(name string) string { return rolesPath + "/" + name }

func newRole() *command {
	return &command{
		name: "role", short: "Add, change and remove roles", group: groupAuth,
		sub: []*command{newRoleAdd(), newRoleGet(), newRoleList(), newRoleRemove(), newRoleGrant(), newRoleRevoke()},
	}
}

func (c *client) role(ctx context.Context, name string) (r role, err error) {
	return r, c.call(ctx, http.MethodGet, rolePath(name), nil, &r, done)
}

func newRoleAdd() *command {
	return &command{
		name: "add", args: "<role>", short: "Add a role without permissions", example: "role add readers",
		run: named(roleName, func(t *tool, ctx context.Context, c *client, name string) error {
			if _, err := c.role(ctx, name); err == nil {
				return fmt.Errorf("Role %s already exists", name)
			}
			if err := c.call(ctx, http.MethodPut, rolePath(name), role{Role: name}, nil, done, created); err != nil {
				return err
			}
			t.printf("Role %s created\n", name)
			return nil
		}),
	}
}

func newRoleGet() *command {
	return &command{
		name: "get", args: "<role>", short: "Show the permissions of a role", example: "role get readers",
		run: named(roleName, func(t *tool, ctx context.Context, c *client, name string) error {
			r, err := c.role(ctx, name)
			if err != nil {
				return err
			}
			t.printf("Role: %s\nKV Read:\n", r.Role)
			for _, p := range r.Permissions.KV.Read {
				t.printf("\t%s\n", p)
			}
			t.printf("KV Write:\n")
			for _, p := range r.Permissions.KV.Write {
				t.printf("\t%s\n", p)
			}
			return nil
		}),
	}
}

func newRoleList() *command {
	return &command{
		name: "list", short: "List the roles", example: "role list",
		run: func(t *tool, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			return t.authOnline(func(ctx context.Context, c *client) error {
				answer, err := c.do(ctx, request{method: http.MethodGet, path: rolesPath})
				if err != nil {
					return err
				}
				if answer.status != done {
					return fmt.Errorf("unexpected status code %d", answer.status)
				}
				var all struct{ Roles []struct{ Role string } }
				if err := json.Unmarshal(answer.body, &all); err != nil {
					return err
				}
				for _, r := range all.Roles {
					t.printf("%s\n", r.Role)
				}
				return nil
			})
		},
	}
}

func newRoleRemove() *command {
	return &command{
		name: "remove", args: "<role>", short: "Remove a role", example: "role remove readers",
		run: named(roleName, func(t *tool, ctx context.Context, c *client, name string) error {
			if err := c.call(ctx, http.MethodDelete, rolePath(name), nil, nil, done); err != nil {
				return err
			}
			t.printf("Role %s removed\n", name)
			return nil
		}),
	}
}

func newRoleGrant() *command {
	return rolePermission("grant", "Let a role read or write paths", func(r *role, p *permissions) { r.Grant = p })
}

func newRoleRevoke() *command {
	return rolePermission("revoke", "Take paths from a role", func(r *role, p *permissions) { r.Revoke = p })
}

// permissionFlags are those of role grant and role revoke.
type permissionFlags struct {
	path            string
	read, write, rw bool
}

func (p *permissionFlags) register(f *flag.FlagSet) {
	f.StringVar(&p.path, "path", "", "a `path`, or all that begin like one that ends with *")
	f.BoolVar(&p.read, "read", false, "reading")
	f.BoolVar(&p.write, "write", false, "writing")
	boolFlag(f, &p.rw, "readwrite", "rw", "reading and writing")
}

func (p *permissionFlags) permissions() (*permissions, error) {
	switch {
	case p.path == "":
		return nil, errors.New("No path specified; please use `--path`")
	case !strings.HasPrefix(p.path, "/"):
		return nil, fmt.Errorf("Not canonical path; please use `--path=/%s`", p.path)
	}
	kinds := 0
	for _, given := range []bool{p.read, p.write, p.rw} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, errors.New("Please specify exactly one of --read, --write or --readwrite")
	}
	var all permissions
	if p.read || p.rw {
		all.KV.Read = []string{p.path}
	}
	if p.write || p.rw {
		all.KV.Write = []string{p.path}
	}
	return &all, nil
}

func rolePermission(name, short string, put func(*role, *permissions)) *command {
	var f permissionFlags
	return &command{
		name: name, args: "<role>", short: short, example: "role " + name + " --path '/config/*' --readwrite readers", flags: f.register,
		run: func(t *tool, args []string) error {
			wanted, err := f.permissions()
			if err != nil {
				return bare(err)
			}
			return named(roleName, func(t *tool, ctx context.Context, c *client, name string) error {
				if _, err := c.role(ctx, name); err != nil {
					return err
				}
				change := role{Role: name}
				put(&change, wanted)
				if err := c.call(ctx, http.MethodPut, rolePath(name), change, nil, done); err != nil {
					return err
				}
				t.printf("Role %s updated\n", name)
				return nil
			})(t, args)
		},
	}
}
