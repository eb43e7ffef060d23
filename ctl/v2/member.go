package v2

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

const membersPath = "/v2/members"

type member struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

type peerURLs struct {
	PeerURLs []string `json:"peerURLs"`
}

func (c *client) members(ctx context.Context) ([]member, error) {
	var all struct{ Members []member }
	return all.Members, c.call(ctx, http.MethodGet, membersPath, nil, &all, done)
}

func newMember() *command {
	return &command{
		name: "member", short: "See and change who is in the cluster", group: groupCluster,
		sub: []*command{newMemberList(), newMemberAdd(), newMemberRemove(), newMemberUpdate()},
	}
}

func newMemberList() *command {
	return &command{
		name: "list", short: "List the members", example: "member list",
		run: func(t *tool, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			return t.bareOnline(func(ctx context.Context, c *client) error {
				all, err := c.members(ctx)
				if err != nil {
					return err
				}
				var leader member
				if err := c.call(ctx, http.MethodGet, membersPath+"/leader", nil, &leader, done); err != nil {
					return fmt.Errorf("Failed to get leader:  %w", err)
				}
				for _, m := range all {
					t.printMember(m, m.ID == leader.ID)
				}
				return nil
			})
		},
	}
}

func (t *tool) printMember(m member, leads bool) {
	peers := strings.Join(m.PeerURLs, ",")
	if m.Name == "" {
		t.printf("%s[unstarted]: peerURLs=%s\n", m.ID, peers)
		return
	}
	t.printf("%s: name=%s peerURLs=%s clientURLs=%s isLeader=%t\n", m.ID, m.Name, peers, strings.Join(m.ClientURLs, ","), leads)
}

func newMemberAdd() *command {
	return &command{
		name: "add", args: "<name> <peerURL>", short: "Admit a member, and print what to start it with", example: "member add m4 http://10.0.0.4:2380",
		run: func(t *tool, args []string) error {
			if len(args) != 2 {
				return badArgs("Provide a name and a single member peerURL")
			}
			return t.bareOnline(func(ctx context.Context, c *client) error {
				var m member
				if err := c.call(ctx, http.MethodPost, membersPath, peerURLs{args[1:]}, &m, created); err != nil {
					return err
				}
				t.printf("Added member named %s with ID %s to cluster\n", args[0], m.ID)
				all, err := c.members(ctx)
				if err != nil {
					return err
				}
				t.printf("\nETCD_NAME=%q\nETCD_INITIAL_CLUSTER=%q\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n", args[0], initialCluster(all, m.ID, args[0]))
				return nil
			})
		},
	}
}

// initialCluster are all members with their peer URLs. The new one has told
// nobody its name yet.
func initialCluster(all []member, newID, name string) string {
	var parts []string
	for _, m := range all {
		for _, u := range m.PeerURLs {
			if m.ID == newID {
				m.Name = name
			}
			parts = append(parts, m.Name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

func newMemberRemove() *command {
	return &command{
		name: "remove", args: "<memberID>", short: "Remove a member from the cluster", example: "member remove 8e9e05c52164694d",
		run: func(t *tool, args []string) error {
			if len(args) != 1 {
				return badArgs("Provide a single member ID")
			}
			return t.bareOnline(func(ctx context.Context, c *client) error {
				all, err := c.members(ctx)
				if err != nil {
					return fmt.Errorf("Error while verifying ID against known members: %w", err)
				}
				if !knownMember(all, args[0]) {
					return badArgs("Couldn't find a member in the cluster with an ID of %s.", args[0])
				}
				if err := c.call(ctx, http.MethodDelete, membersPath+"/"+args[0], nil, nil, noContent, http.StatusGone); err != nil {
					return badArgs("Received an error trying to remove member %s: %v", args[0], err)
				}
				t.printf("Removed member %s from cluster\n", args[0])
				return nil
			})
		},
	}
}

func knownMember(all []member, id string) bool {
	for _, m := range all {
		if m.ID == id {
			return true
		}
	}
	return false
}

func newMemberUpdate() *command {
	return &command{
		name: "update", args: "<memberID> <peerURLs>", short: "Change where the others reach a member", example: "member update 8e9e05c52164694d http://10.0.0.5:2380",
		run: func(t *tool, args []string) error {
			if len(args) != 2 {
				return badArgs("Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)")
			}
			return t.bareOnline(func(ctx context.Context, c *client) error {
				if err := c.call(ctx, http.MethodPut, membersPath+"/"+args[0], peerURLs{strings.Split(args[1], ",")}, nil, noContent); err != nil {
					return err
				}
				t.printf("Updated member with ID %s in cluster\n", args[0])
				return nil
			})
		},
	}
}
