package v2

import (
	"context"
	"net/http"
)

func newAuth() *command {
	return &command{
		name: "auth", short: "Demand passwords, or no longer", group: groupAuth,
		sub: []*command{
			authCommand("enable", http.MethodPut, "Demand a user's password for what the role guest may not do", "Authentication Enabled"),
			authCommand("disable", http.MethodDelete, "Let everybody do everything", "Authentication Disabled"),
		},
	}
}

func authCommand(name, method, short, said string) *command {
	return &command{
		name: name, short: short, example: "-u root:secret auth " + name,
		run: func(t *tool, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			return t.authOnline(func(ctx context.Context, c *client) error {
				if err := c.call(ctx, method, "/v2/auth/enable", nil, nil, done); err != nil {
					return err
				}
				t.printf("%s\n", said)
				return nil
			})
		},
	}
}
