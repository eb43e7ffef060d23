package v2

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

func newWatch() *command {
	var forever, recursive bool
	var after uint64
	return &command{
		name: "watch", args: "<key>", short: "Print the next change of a key", group: groupKeys, example: "watch --forever --recursive /config",
		flags: func(f *flag.FlagSet) {
			boolFlag(f, &forever, "forever", "f", "go on until Ctrl-C")
			f.Uint64Var(&after, "after-index", 0, "the first change after this `index`, be it long ago")
			boolFlag(f, &recursive, "recursive", "r", "changes of all keys below too; prints which")
		},
		run: func(t *tool, args []string) error {
			key, err := keyArg(args)
			if err != nil {
				return err
			}
			return t.watch(key, after, recursive, func(e *event) (bool, error) {
				if e.Node.Dir {
					return true, nil
				}
				if recursive {
					t.printf("[%s] %s\n", e.Action, e.Node.Key)
				}
				t.printEvent(e)
				return forever, nil
			})
		},
	}
}

// watch calls visit for each change, in order, until it returns false or an
// error. No timeout holds for it. A change is waited for from the index after
// the last one, so that none is lost between two requests.
func (t *tool) watch(key string, after uint64, recursive bool, visit func(*event) (more bool, err error)) error {
	c, err := t.connect(t.ctx)
	if err != nil {
		return err
	}
	from := uint64(0)
	if after > 0 {
		from = after + 1
	}
	for {
		e, err := c.wait(t.ctx, key, from, recursive)
		if t.ctx.Err() != nil {
			return nil //nolint:nilerr // Ctrl-C is how a watch ends
		}
		if err != nil {
			return refused(exitServer, err)
		}
		if e == nil {
			continue // the server has ended the wait: begin anew
		}
		if more, err := visit(e); err != nil || !more {
			return err
		}
		from = e.Node.ModifiedIndex + 1
	}
}

// wait is one long poll. nil, nil is one that ended without a change.
func (c *client) wait(ctx context.Context, key string, from uint64, recursive bool) (*event, error) {
	q := url.Values{"wait": {"true"}, "waitIndex": {strconv.FormatUint(from, 10)}, "recursive": {strconv.FormatBool(recursive)}}
	answer, err := c.open(ctx, request{method: http.MethodGet, path: keyPath(key), query: q})
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return nil, err
		}
		return keyEvent(reply{answer.StatusCode, answer.Header, body})
	}
	// One event is enough: the body goes on for a moment after it.
	var body json.RawMessage
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		if err == io.EOF { //nolint:errorlint // the decoder gives it bare
			return nil, nil
		}
		return nil, errNotJSON
	}
	return keyEvent(reply{answer.StatusCode, answer.Header, body})
}
