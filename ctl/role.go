package ctl

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newRole(a *app) *cobra.Command {
	return group("role", "Say which keys may be read and written",
		newRoleNamed(a, "add", "Create a role that allows nothing yet", command.addRole),
		newRoleNamed(a, "delete", "Delete a role, also from its users", command.deleteRole),
		newRoleNamed(a, "get", "Show which keys a role allows", command.showRole),
		newRoleGrant(a), newRoleList(a), newRoleRevoke(a))
}

// newRoleNamed is a command that takes the name of a role and nothing else.
func newRoleNamed(a *app, verb, short string, run func(c command, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " <role>", Short: short, Example: "  " + a.name + " role " + verb + " reader",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("role %s command requires role name as its argument", verb)
			}
			return a.online(func(c command) error { return run(c, args[0]) })
		},
	}
}

func (c command) addRole(name string) error {
	r, err := c.Auth.RoleAdd(c.ctx, &pb.AuthRoleAddRequest{Name: name})
	if err != nil {
		return err
	}
	return c.Printer.Done(r, r.Header, "Role %s created", name)
}

func (c command) deleteRole(name string) error {
	r, err := c.Auth.RoleDelete(c.ctx, &pb.AuthRoleDeleteRequest{Role: name})
	if err != nil {
		return err
	}
	return c.Printer.Done(r, r.Header, "Role %s deleted", name)
}

func (c command) showRole(name string) error {
	r, err := c.Auth.RoleGet(c.ctx, &pb.AuthRoleGetRequest{Role: name})
	if err != nil {
		return err
	}
	return c.Printer.RoleGet(name, r)
}

func newRoleList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the roles", Example: "  " + a.name + " role list",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 {
				return badArgs("role list command requires no arguments")
			}
			return a.online(func(c command) error {
				r, err := c.Auth.RoleList(c.ctx, &pb.AuthRoleListRequest{})
				if err != nil {
					return err
				}
				return c.Printer.RoleList(r)
			})
		},
	}
}

// permissionRange is the key and range_end that the arguments of a permission
// command mean.
func permissionRange(prefix, fromKey bool, args []string) (key, end []byte, err error) {
	if prefix && fromKey {
		return nil, nil, badArgs("--from-key and --prefix flags are mutually exclusive")
	}
	if len(args) > 1 && prefix {
		return nil, nil, badArgs("unexpected endkey argument with --prefix flag")
	}
	if len(args) > 1 && fromKey {
		return nil, nil, badArgs("unexpected endkey argument with --from-key flag")
	}
	span, err := rangeOptions(prefix, fromKey, args)
	if err != nil {
		return nil, nil, err
	}
	r := client.GetRequest(args[0], span...)
	return r.Key, r.RangeEnd, nil
}

func newRoleGrant(a *app) *cobra.Command {
	var prefix, fromKey bool
	c := &cobra.Command{
		Use: "grant-permission <role> read|write|readwrite <key> [end]", Short: "Allow a role a key, or the keys from one up to another",
		Example: "  " + a.name + " role grant-permission reader read /config/ --prefix",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 || len(args) > 4 {
				return badArgs("role grant command requires role name, permission type, and key [endkey] as its argument")
			}
			kind, found := authpb.Permission_Type_value[strings.ToUpper(args[1])]
			if !found {
				return badArgs("invalid permission type: %s", args[1])
			}
			key, end, err := permissionRange(prefix, fromKey, args[2:])
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.Auth.RoleGrantPermission(c.ctx, &pb.AuthRoleGrantPermissionRequest{
					Name: args[0], Perm: &authpb.Permission{PermType: authpb.Permission_Type(kind), Key: key, RangeEnd: end},
				})
				if err != nil {
					return err
				}
				return c.Printer.Done(r, r.Header, "Role %s updated", args[0])
			})
		},
	}
	c.Flags().BoolVar(&prefix, "prefix", false, "all keys that begin with <key>")
	c.Flags().BoolVar(&fromKey, "from-key", false, "<key> and all keys that sort after it, byte by byte")
	return c
}

func newRoleRevoke(a *app) *cobra.Command {
	var prefix, fromKey bool
	c := &cobra.Command{
		Use: "revoke-permission <role> <key> [end]", Short: "Take back what grant-permission gave",
		Example: "  " + a.name + " role revoke-permission reader /config/ --prefix",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 || len(args) > 3 {
				return badArgs("role revoke-permission command requires role name and key [endkey] as its argument")
			}
			key, end, err := permissionRange(prefix, fromKey, args[1:])
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.Auth.RoleRevokePermission(c.ctx, &pb.AuthRoleRevokePermissionRequest{Role: args[0], Key: key, RangeEnd: end})
				if err != nil {
					return err
				}
				return c.Printer.RevokePermission(args[0], []byte(args[1]), end, r)
			})
		},
	}
	c.Flags().BoolVar(&prefix, "prefix", false, "all keys that begin with <key>")
	c.Flags().BoolVar(&fromKey, "from-key", false, "<key> and all keys that sort after it, byte by byte")
	return c
}
