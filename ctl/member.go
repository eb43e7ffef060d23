package ctl

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newMember(a *app) *cobra.Command {
	return group("member", "See and change who is in the cluster",
		newMemberAdd(a), newMemberList(a), newMemberPromote(a), newMemberRejoin(a), newMemberRemove(a), newMemberUpdate(a))
}

func memberArg(args []string) (uint64, error) {
	if len(args) != 1 {
		return 0, badArgs("member ID is not provided")
	}
	id, err := strconv.ParseUint(args[0], 16, 64)
	if err != nil {
		return 0, badArgs("bad member ID arg (%w), expecting ID in Hex", err)
	}
	return id, nil
}

// checkURLs refuses what a member could not be reached by.
func checkURLs(urls []string) error {
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil {
			return err
		}
		switch u.Scheme {
		case "http", "https":
			if u.Port() == "" {
				return fmt.Errorf(`URL address does not have the form "host:port": %s`, s)
			}
			if u.Path != "" {
				return fmt.Errorf("URL must not contain a path: %s", s)
			}
		case "unix", "unixs":
		default:
			return fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", s)
		}
	}
	return nil
}

func newMemberAdd(a *app) *cobra.Command {
	var peers string
	var learner bool
	c := &cobra.Command{
		Use: "add <name>", Short: "Admit a member, and print what to start it with",
		Example: "  " + a.name + " member add m4 --peer-urls=http://10.0.0.4:2380 --learner",
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) < 1:
				return badArgs("member name not provided")
			case len(args) > 1:
				return badArgs("too many arguments")
			case peers == "":
				return badArgs("member peer urls not provided")
			}
			urls := strings.Split(peers, ",")
			if err := checkURLs(urls); err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.Cluster.MemberAdd(c.ctx, &pb.MemberAddRequest{PeerURLs: urls, IsLearner: learner})
				if err != nil {
					return err
				}
				return c.Printer.MemberAdd(r, args[0])
			})
		},
	}
	c.Flags().StringVar(&peers, "peer-urls", "", "`URLs` at which the other members will reach it, with commas between")
	c.Flags().BoolVar(&learner, "learner", false, "let it catch up first, without a vote (see promote)")
	return c
}

func newMemberList(a *app) *cobra.Command {
	var consistency string
	c := &cobra.Command{
		Use: "list", Short: "List the members",
		Example: "  " + a.name + " member list -w table",
		RunE: func(*cobra.Command, []string) error {
			if consistency != "l" && consistency != "s" {
				return fail(exitFeature, "unknown consistency flag %q", consistency)
			}
			return a.online(func(c command) error {
				r, err := c.Members(c.ctx, consistency == "s")
				if err != nil {
					return err
				}
				return c.Printer.MemberList(r)
			})
		},
	}
	c.Flags().StringVar(&consistency, "consistency", "l", "l: ask a quorum; s: what the member knows, asking nobody")
	return c
}

func newMemberPromote(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "promote <member>", Short: "Give a learner a vote",
		Example: "  " + a.name + " member promote 8211f1d0f64f3269",
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := memberArg(args)
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.Cluster.MemberPromote(c.ctx, &pb.MemberPromoteRequest{ID: id})
				if err != nil {
					return err
				}
				return c.Printer.MemberPromote(id, r)
			})
		},
	}
}

func newMemberRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove <member>", Short: "Take a member out, for good",
		Example: "  " + a.name + " member remove 8211f1d0f64f3269",
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := memberArg(args)
			if err != nil {
				return err
			}
			return a.online(func(c command) error {
				r, err := c.Cluster.MemberRemove(c.ctx, &pb.MemberRemoveRequest{ID: id})
				if err != nil {
					return err
				}
				return c.Printer.MemberRemove(id, r)
			})
		},
	}
}

func newMemberUpdate(a *app) *cobra.Command {
	var peers string
	c := &cobra.Command{
		Use: "update <member>", Short: "Change the peer URLs of a member",
		Example: "  " + a.name + " member update 8211f1d0f64f3269 --peer-urls=http://10.0.0.4:2380",
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := memberArg(args)
			if err != nil {
				return err
			}
			if peers == "" {
				return badArgs("member peer urls not provided")
			}
			return a.online(func(c command) error {
				r, err := c.Cluster.MemberUpdate(c.ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: strings.Split(peers, ",")})
				if err != nil {
					return err
				}
				return c.Printer.MemberUpdate(id, r)
			})
		},
	}
	c.Flags().StringVar(&peers, "peer-urls", "", "its new `URLs` for the other members, with commas between")
	return c
}
