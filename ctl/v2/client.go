package v2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

var (
	errNoEndpoints = errors.New("client: no endpoints available")
	errNotJSON     = errors.New("client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint")
	errEmpty       = errors.New("client: response body is empty")
)

// clusterError tells why each endpoint could not be used.
type clusterError struct{ causes []error }

func (c *clusterError) Error() string {
	return "client: etcd cluster is unavailable or misconfigured; " + c.list("; ")
}

// list is one line for each cause; the separator begins all but the first.
func (c *clusterError) list(separator string) string {
	var s strings.Builder
	for i, err := range c.causes {
		if i > 0 {
			s.WriteString(separator)
		}
		fmt.Fprintf(&s, "error #%d: %v\n", i, err)
	}
	return s.String()
}

func (c *clusterError) detail() string { return c.list("") }

// unreachable reports whether there was no connection at all.
func (c *clusterError) unreachable() bool {
	for _, err := range c.causes {
		if op := (*net.OpError)(nil); !errors.As(err, &op) || op.Op != "dial" {
			return false
		}
	}
	return true
}

// request is one call of the v2 API.
type request struct {
	method, path string
	query        url.Values
	body         *string // nil: none
	json         bool    // the body is; otherwise it is a form
}

// reply is its answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// client tries the endpoints one after the other.
type client struct {
	t              *tool
	http           *http.Client
	endpoints      []string
	user, password string
}

// connect makes the client that the global flags describe and asks the cluster
// for its endpoints, unless told not to.
func (t *tool) connect(ctx context.Context) (*client, error) {
	c, err := t.newClient(ctx)
	if err != nil || t.global.noSync {
		if err == nil {
			t.debugf("Cluster-Endpoints: %s\n", strings.Join(c.endpoints, ", "))
		}
		return c, err
	}
	t.debugf("start to sync cluster using endpoints(%s)\n", strings.Join(c.endpoints, ","))
	ctx, cancel := t.bounded(ctx)
	defer cancel()
	if err := c.sync(ctx); err != nil {
		all := (*clusterError)(nil)
		switch {
		case errors.Is(err, errNoEndpoints):
			t.warnf("etcd cluster has no published client endpoints.\n")
			t.warnf("Try '--no-sync' if you want to access non-published client endpoints(%s).\n", strings.Join(c.endpoints, ","))
			return nil, refused(exitServer, err)
		case errors.Is(err, context.DeadlineExceeded), errors.As(err, &all) && all.unreachable():
			return nil, refused(exitConnect, err)
		}
		// The command itself will tell what is wrong with the endpoint.
	}
	t.debugf("got endpoints(%s) after sync\n", strings.Join(c.endpoints, ","))
	t.debugf("Cluster-Endpoints: %s\n", strings.Join(c.endpoints, ", "))
	return c, nil
}

func (t *tool) newClient(ctx context.Context) (*client, error) {
	endpoints, err := t.global.addresses(ctx, t)
	if err != nil {
		return nil, bare(err)
	}
	for _, e := range endpoints {
		if _, err := url.Parse(e); err != nil {
			return nil, bare(err)
		}
	}
	transport, err := t.transport()
	if err != nil {
		return nil, bare(err)
	}
	c := &client{t: t, http: &http.Client{Transport: transport}, endpoints: endpoints}
	if c.user, c.password, err = t.credentials(); err != nil {
		return nil, bare(err)
	}
	c.shuffle()
	return c, nil
}

func (t *tool) transport() (*http.Transport, error) {
	secure, err := t.global.tls()
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, TLSHandshakeTimeout: 10 * time.Second,
		DialContext:           (&net.Dialer{Timeout: t.global.timeout, KeepAlive: 30 * time.Second}).DialContext,
		ResponseHeaderTimeout: t.global.timeout,
	}, nil
}

// bounded is ctx with the total timeout.
func (t *tool) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, t.global.totalTimeout)
}

// shuffle spreads the clients over the members.
func (c *client) shuffle() {
	rand.Shuffle(len(c.endpoints), func(i, j int) { c.endpoints[i], c.endpoints[j] = c.endpoints[j], c.endpoints[i] })
}

// sync replaces the endpoints by those that the members have published.
func (c *client) sync(ctx context.Context) error {
	all, err := c.members(ctx)
	if err != nil {
		return err
	}
	var found []string
	for _, m := range all {
		found = append(found, m.ClientURLs...)
	}
	if len(found) == 0 {
		return errNoEndpoints
	}
	before := slices.Clone(c.endpoints)
	c.endpoints = found
	c.shuffle()
	// The endpoint that has just answered is tried first.
	if i := slices.Index(c.endpoints, before[0]); i > 0 {
		c.endpoints[0], c.endpoints[i] = c.endpoints[i], c.endpoints[0]
	}
	return nil
}

// do sends the request to one endpoint after the other until one answers
// without a server error. The whole body is read.
func (c *client) do(ctx context.Context, r request) (reply, error) {
	answer, err := c.open(ctx, r)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, body}, err
}

func (c *client) open(ctx context.Context, r request) (*http.Response, error) {
	failed := &clusterError{}
	for i, endpoint := range c.endpoints {
		answer, err := c.try(ctx, endpoint, r)
		if err == nil {
			c.endpoints[0], c.endpoints[i] = c.endpoints[i], c.endpoints[0]
			return answer, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failed.causes = append(failed.causes, err)
	}
	return nil, failed
}

func (c *client) try(ctx context.Context, endpoint string, r request) (*http.Response, error) {
	address, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	address.Path, address.RawPath = strings.TrimSuffix(address.Path, "/")+r.path, ""
	address.RawQuery = r.query.Encode()
	var body io.Reader
	if r.body != nil {
		body = strings.NewReader(*r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address.String(), body)
	if err != nil {
		return nil, err
	}
	c.curl(req, r)
	switch {
	case r.json:
		req.Header.Set("Content-Type", "application/json")
	case r.body != nil:
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if c.user != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, connectionError(endpoint, err)
	}
	if answer.StatusCode < http.StatusInternalServerError {
		return answer, nil
	}
	_ = answer.Body.Close()
	if answer.StatusCode == http.StatusInternalServerError || answer.StatusCode == http.StatusServiceUnavailable {
		return nil, fmt.Errorf("client: etcd member %s has no leader", endpoint)
	}
	return nil, fmt.Errorf("client: etcd member %s returns server error [%s]", endpoint, http.StatusText(answer.StatusCode))
}

func (c *client) curl(req *http.Request, r request) {
	if !c.t.global.debug {
		return
	}
	data := ""
	if r.body != nil {
		data = fmt.Sprintf(" -d %q", *r.body)
	}
	if strings.Contains(req.URL.Path, "/auth/users/") && data != "" {
		data = " -d (hidden)" // a password is in it
	}
	c.t.warnf("cURL Command: curl -X %s %s%s\n", r.method, req.URL, data)
}

// connectionError is what http says, without the URL that it says first.
func connectionError(endpoint string, err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	var slow net.Error
	if op := (*net.OpError)(nil); errors.As(err, &slow) && slow.Timeout() && !errors.As(err, &op) {
		return fmt.Errorf("client: endpoint %s exceeded header timeout", endpoint)
	}
	return err
}
