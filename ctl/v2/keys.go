package v2

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"
)

// node is a file or a directory. The order of the fields is that of -o json.
type node struct {
	Key           string     `json:"key"`
	Dir           bool       `json:"dir,omitempty"`
	Value         string     `json:"value"`
	Nodes         []*node    `json:"nodes"`
	CreatedIndex  uint64     `json:"createdIndex"`
	ModifiedIndex uint64     `json:"modifiedIndex"`
	Expiration    *time.Time `json:"expiration,omitempty"`
	TTL           int64      `json:"ttl,omitempty"`
}

// event is what was done to a node, or the answer to a get.
type event struct {
	Action   string `json:"action"`
	Node     *node  `json:"node"`
	PrevNode *node  `json:"prevNode"`
	index    uint64 // of the store
}

// keyError is an error of the server.
type keyError struct {
	Code    int    `json:"errorCode"`
	Message string `json:"message"`
	Cause   string `json:"cause"`
	Index   uint64 `json:"index"`
}

func (e *keyError) Error() string {
	return fmt.Sprintf("%d: %s (%s) [%d]", e.Code, e.Message, e.Cause, e.Index)
}

// keyPath is the path of the API for a key as people type it.
func keyPath(key string) string { return "/v2/keys" + path.Clean("/"+key) }

// key runs one request for a key.
func (c *client) key(ctx context.Context, r request) (*event, error) {
	answer, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return keyEvent(answer)
}

// keyEvent is the event in an answer, or the error.
func keyEvent(r reply) (*event, error) {
	if r.status != http.StatusOK && r.status != http.StatusCreated {
		e := &keyError{}
		if json.Unmarshal(r.body, e) != nil {
			return nil, errNotJSON
		}
		return nil, e
	}
	if len(r.body) == 0 {
		return nil, errEmpty
	}
	e := &event{}
	if json.Unmarshal(r.body, e) != nil || e.Node == nil {
		return nil, errNotJSON
	}
	e.index, _ = strconv.ParseUint(r.header.Get("X-Etcd-Index"), 10, 64)
	return e, nil
}

// get is a GET of a key.
func get(key string, quorum, recursive, sorted bool) request {
	q := url.Values{}
	for name, v := range map[string]bool{"quorum": quorum, "recursive": recursive, "sorted": sorted} {
		q.Set(name, strconv.FormatBool(v))
	}
	return request{method: http.MethodGet, path: keyPath(key), query: q}
}

// write is a PUT or POST with a form. A ttl of 0 or less is none.
func write(method, key string, query url.Values, value *string, ttl int64) request {
	form := url.Values{}
	if value != nil {
		form.Set("value", *value)
	}
	if ttl > 0 {
		form.Set("ttl", strconv.FormatInt(ttl, 10))
	}
	body := form.Encode()
	return request{method: method, path: keyPath(key), query: query, body: &body}
}

// online connects, runs f within the total timeout, and tells the errors of
// keys.
func (t *tool) online(f func(context.Context, *client) error) error {
	c, err := t.connect(t.ctx)
	if err != nil {
		return err
	}
	ctx, cancel := t.bounded(t.ctx)
	defer cancel()
	return f(ctx, c)
}

// keyCommand runs one request for a key and prints the answer.
func (t *tool) keyCommand(r request) error { return t.keyRequest(r, t.printEvent) }

// dirCommand is keyCommand for a directory, of which -o simple says nothing.
func (t *tool) dirCommand(r request) error {
	return t.keyRequest(r, func(e *event) {
		if t.global.output != simple {
			t.printEvent(e)
		}
	})
}

func (t *tool) keyRequest(r request, show func(*event)) error {
	return t.online(func(ctx context.Context, c *client) error {
		e, err := c.key(ctx, r)
		if err != nil {
			return refused(exitServer, err)
		}
		show(e)
		return nil
	})
}

// keyArg is the first argument.
func keyArg(args []string) (string, error) {
	if len(args) == 0 {
		return "", badArgs("Error:  key required")
	}
	return args[0], nil
}

// keyAndValue are the first two arguments; a missing value is read from
// standard input.
func (t *tool) keyAndValue(args []string) (key, value string, err error) {
	if key, err = keyArg(args); err != nil {
		return "", "", err
	}
	if len(args) > 1 {
		return key, args[1], nil
	}
	value, err = t.stdinValue()
	return key, value, err
}
