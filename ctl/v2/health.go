package v2

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"time"
)

// healthPause is how long --forever waits before the next check.
const healthPause = 10 * time.Second

func newHealth() *command {
	var forever bool
	return &command{
		name: "cluster-health", short: "Check whether each member, and so the cluster, is healthy", group: groupCluster, example: "cluster-health",
		long: "The exit code is 5 if a member is not healthy, and 4 if the members cannot be listed.",
		flags: func(f *flag.FlagSet) {
			boolFlag(f, &forever, "forever", "f", "check again every 10 seconds until Ctrl-C")
		},
		run: func(t *tool, _ []string) error {
			for {
				err := t.checkHealth()
				if !forever {
					return err
				}
				if err != nil && err.Error() != "" {
					t.warnf("%v\n", err)
				}
				t.printf("\nnext check after 10 second...\n\n")
				select {
				case <-t.ctx.Done():
					return nil
				case <-time.After(healthPause):
				}
			}
		},
	}
}

func (t *tool) checkHealth() error {
	c, err := t.newClient(t.ctx)
	if err != nil {
		return err
	}
	for _, e := range c.endpoints {
		t.debugf("Cluster-Endpoints: %s\n", e)
	}
	ctx, cancel := t.bounded(t.ctx)
	defer cancel()
	all, err := c.members(ctx)
	if err != nil {
		t.printf("cluster may be unhealthy: failed to list members\n")
		return refused(exitServer, err)
	}
	healthy := 0
	for _, m := range all {
		if t.memberHealthy(c, m) {
			healthy++
		}
	}
	switch healthy {
	case len(all):
		t.printf("cluster is healthy\n")
		return nil
	case 0:
		t.printf("cluster is unavailable\n")
	default:
		t.printf("cluster is degraded\n")
	}
	return &failure{code: exitUnhealthy}
}

// memberHealthy asks a member at one URL after the other until one answers.
func (t *tool) memberHealthy(c *client, m member) bool {
	if len(m.ClientURLs) == 0 {
		t.printf("member %s is unreachable: no available published client urls\n", m.ID)
		return false
	}
	for _, u := range m.ClientURLs {
		healthy, err := t.healthAt(c, u)
		switch {
		case err != nil:
			t.printf("failed to check the health of member %s on %s: %v\n", m.ID, u, err)
		case healthy:
			t.printf("member %s is healthy: got healthy result from %s\n", m.ID, u)
			return true
		default:
			t.printf("member %s is unhealthy: got unhealthy result from %s\n", m.ID, u)
			return false
		}
	}
	t.printf("member %s is unreachable: %v are all unreachable\n", m.ID, m.ClientURLs)
	return false
}

func (t *tool) healthAt(c *client, url string) (bool, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.global.totalTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/health", nil)
	if err != nil {
		return false, err
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = answer.Body.Close() }()
	var said struct{ Health any }
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
		return false, err
	}
	return said.Health == "true" || said.Health == true, nil
}
