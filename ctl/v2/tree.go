package v2

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
)

// Source is a server to read from.
type Source struct {
	Endpoints      []string    // URLs
	TLS            *tls.Config // nil: that of the system
	User, Password string
}

// Entry is a file, or a directory that holds nothing.
type Entry struct {
	Key, Value string
	Dir        bool
	TTLSeconds int64 // of the key or of a directory above it, the shorter; 0 = none
}

// Tree reads all below a path, in order, as the majority has it. Hidden keys
// are not listed by the API: they are read only below a path that is hidden.
func Tree(ctx context.Context, s Source, path string) ([]Entry, error) {
	t := &tool{Config: Config{Stdout: io.Discard, Stderr: io.Discard}, ctx: ctx}
	c := &client{t: t, endpoints: s.Endpoints, user: s.User, password: s.Password, http: &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: s.TLS},
	}}
	e, err := c.key(ctx, get(path, true, true, true))
	if err != nil {
		return nil, err
	}
	return entries(nil, e.Node, 0), nil
}

func entries(all []Entry, n *node, ttl int64) []Entry {
	if n.TTL > 0 && (ttl == 0 || n.TTL < ttl) {
		ttl = n.TTL
	}
	if !n.Dir || len(n.Nodes) == 0 {
		return append(all, Entry{Key: n.Key, Value: n.Value, Dir: n.Dir, TTLSeconds: ttl})
	}
	for _, below := range n.Nodes {
		all = entries(all, below, ttl)
	}
	return all
}
