package api

import (
	"fmt"
	"net"
	"net/url"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// ParseURL reads the URL of a listener or of a member.
func ParseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.User != nil {
		return nil, fmt.Errorf("URL must not contain a user or a password: %s://…@%s", u.Scheme, u.Host)
	}
	switch u.Scheme {
	case "http", "https":
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return nil, fmt.Errorf("URL address does not have the form \"host:port\": %s", s)
		}
		if u.Path != "" {
			return nil, fmt.Errorf("URL must not contain a path: %s", s)
		}
	case "unix", "unixs":
	default:
		return nil, fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", s)
	}
	return u, nil
}

// checkMemberAdd: only the URLs of a new member are looked at; MemberUpdate takes any.
func checkMemberAdd(r *pb.MemberAddRequest) error {
	if len(r.PeerURLs) == 0 {
		return ErrMemberURLs
	}
	for _, u := range r.PeerURLs {
		if _, err := ParseURL(u); err != nil {
			return ErrMemberURLs
		}
	}
	return nil
}
