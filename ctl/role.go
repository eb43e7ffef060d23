package ctl

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newRole(a *app) *cobra.Command {
	named := func(use, short string, run func(c command, name string) error) *cobra.Command {
		verb := strings.Fields(use)[0]
		return &cobra.Command{
			Use: use, Short: short, Example: "  " + a.name + " role " + verb + " reader",
			RunE: func(_ *cobra.Command, args []string) error {
				if len(args) != 1 {
					return badArgs("role %s command requires role name as its argument", verb)
				}
				return a.online(func(c command) error { return run(c, args[0]) })
			},
		}
	}
	list := &cobra.Command{
		Use: "list", Short: "Lists all roles", Example: "  " + a.name + " role list",
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
	return group("role", "Role related commands",
		named("add <role name>", "Adds a new role", func(c command, name string) error {
			r, err := c.Auth.RoleAdd(c.ctx, &pb.AuthRoleAddRequest{Name: name})
			if err != nil {
				return err
			}
			return c.Printer.Done(r, r.Header, "Role %s created", name)
		}),
		named("delete <role name>", "Deletes a role", func(c command, name string) error {
			r, err := c.Auth.RoleDelete(c.ctx, &pb.AuthRoleDeleteRequest{Role: name})
			if err != nil {
				return err
			}
			return c.Printer.Done(r, r.Header, "Role %s deleted", name)
		}),
		named("get <role name>", "Gets detailed information of a role", func(c command, name string) error {
			r, err := c.Auth.RoleGet(c.ctx, &pb.AuthRoleGetRequest{Role: name})
			if err != nil {
				return err
			}
			return c.Printer.RoleGet(name, r)
		}),
		newRoleGrant(a), list, newRoleRevoke(a))
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
		Use: "grant-permission [options] <role name> <permission type> <key> [endkey]", Short: "Grants a key to a role",
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
	c.Flags().BoolVar(&prefix, "prefix", false, "grant a prefix permission")
	c.Flags().BoolVar(&fromKey, "from-key", false, "grant a permission of keys that are greater than or equal to the given key using byte compare")
	return c
}

func newRoleRevoke(a *app) *cobra.Command {
	var prefix, fromKey bool
	c := &cobra.Command{
		Use: "revoke-permission <role name> <key> [endkey]", Short: "Revokes a key from a role",
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
	c.Flags().BoolVar(&prefix, "prefix", false, "revoke a prefix permission")
	c.Flags().BoolVar(&fromKey, "from-key", false, "revoke a permission of keys that are greater than or equal to the given key using byte compare")
	return c
}
