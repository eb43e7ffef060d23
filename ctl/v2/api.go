package v2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// call runs a request of /v2/members or /v2/auth. An answer whose status is
// not in ok is an error: the message of the server, or the status.
func (c *client) call(ctx context.Context, method, path string, in, out any, ok ...int) error {
	r := request{method: method, path: path}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		text := string(b)
		r.body, r.json = &text, true
	}
	answer, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	if !slices.Contains(ok, answer.status) {
		return apiError(answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.body, out)
}

func apiError(r reply) error {
	var text struct{ Message string }
	if err := json.Unmarshal(r.body, &text); err != nil {
		return err
	}
	if text.Message == "" {
		return fmt.Errorf("unexpected status code %d", r.status)
	}
	return errors.New(text.Message)
}

// bareOnline is online for commands that tell errors as they are.
func (t *tool) bareOnline(f func(context.Context, *client) error) error {
	return t.online(func(ctx context.Context, c *client) error {
		err := f(ctx, c)
		if err == nil {
			return nil
		}
		if told := (*failure)(nil); errors.As(err, &told) {
			return err
		}
		return bare(err)
	})
}

// authOnline is bareOnline for users and roles, for which etcdctl tells the
// endpoints once more.
func (t *tool) authOnline(f func(context.Context, *client) error) error {
	return t.bareOnline(func(ctx context.Context, c *client) error {
		t.debugf("Cluster-Endpoints: %s\n", strings.Join(c.endpoints, ", "))
		return f(ctx, c)
	})
}

const (
	created   = http.StatusCreated
	done      = http.StatusOK
	noContent = http.StatusNoContent
)

// noArgs refuses arguments.
func noArgs(args []string) error {
	if len(args) > 0 {
		return badArgs("No arguments accepted")
	}
	return nil
}
