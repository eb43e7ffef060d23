package ctl

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

func newDefrag(a *app) *cobra.Command {
	var cluster bool
	var dataDir string
	c := &cobra.Command{
		Use: "defrag", Short: "Give the free space in the database file back to the disk",
		Example: "  " + a.name + " defrag --cluster",
		RunE: func(*cobra.Command, []string) error {
			if dataDir != "" {
				return a.defragmentFile(databasePath(dataDir))
			}
			return a.long(func(c command) error { return c.defrag(cluster) })
		},
	}
	c.Flags().BoolVar(&cluster, "cluster", false, "all members, one after the other, not only those of --endpoints")
	c.Flags().StringVar(&dataDir, "data-dir", "", "a stopped member's data `folder`, in place of --endpoints")
	return c
}

// defrag goes one by one, as a member may answer slowly meanwhile.
func (c command) defrag(cluster bool) error {
	endpoints, err := c.chosen(cluster)
	if err != nil {
		return err
	}
	failures := 0
	for _, ep := range endpoints {
		ctx, cancel := c.after()
		start := time.Now()
		err := c.Defragment(ctx, ep)
		cancel()
		if took := time.Since(start); err != nil {
			c.warnf("Failed to defragment etcd member[%s]. took %s. (%v)\n", ep, took, err)
			failures++
		} else {
			c.printf("Finished defragmenting etcd member[%s]. took %s\n", ep, took)
		}
	}
	if failures > 0 {
		return &failure{code: exitError}
	}
	return nil
}

// newOfflineDefrag is defrag of the tool that knows no endpoints.
func newOfflineDefrag(a *app) *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use: "defrag", Short: "Give the free space in a stopped member's database file back to the disk",
		Example: "  " + a.name + " defrag --data-dir default.etcd",
		RunE:    func(*cobra.Command, []string) error { return a.defragmentFile(databasePath(dataDir)) },
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", "the member's data `folder`")
	if err := c.MarkFlagRequired("data-dir"); err != nil {
		panic(err) // the line above defines it
	}
	return c
}

// databasePath is where a member has its database.
func databasePath(dataDir string) string { return filepath.Join(dataDir, "member", "snap", "db") }

// chosen are the given endpoints, or those that the members announce.
func (c command) chosen(cluster bool) ([]string, error) {
	if !cluster {
		return c.Endpoints(), nil
	}
	ctx, cancel := c.after()
	defer cancel()
	r, err := c.Members(ctx, false)
	if err != nil {
		return nil, fail(exitError, "failed to fetch endpoints from etcd cluster member list: %w", err)
	}
	var all []string
	for _, m := range r.Members {
		all = append(all, m.ClientURLs...)
	}
	return all, nil
}
