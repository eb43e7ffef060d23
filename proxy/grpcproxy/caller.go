package grpcproxy

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
)

// caller is whose credentials a request has. Only what equal callers have asked
// for is shared.
type caller struct {
	token  string
	leader bool // a member that sees no leader must refuse the request
}

func callerOf(ctx context.Context) caller {
	md, _ := metadata.FromIncomingContext(ctx)
	one := func(key string) string {
		if all := md.Get(key); len(all) > 0 {
			return all[0]
		}
		return ""
	}
	c := caller{token: one("token"), leader: one("hasleader") == "true"}
	if c.token == "" {
		c.token = one("authorization")
	}
	return c
}

// context gives ctx the caller's credentials, for what several requests share.
func (c caller) context(ctx context.Context) context.Context {
	md := metadata.MD{}
	if c.token != "" {
		md.Set("token", strings.TrimPrefix(c.token, "Bearer "))
	}
	if c.leader {
		md.Set("hasleader", "true")
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// outgoing passes on what a client has sent beside its request.
func outgoing(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.MD{}
	for key, values := range in {
		switch {
		case strings.HasPrefix(key, ":"), strings.HasPrefix(key, "grpc-"):
		case key == "content-type", key == "user-agent", key == "client-api-version", key == "te":
		default:
			out[key] = values
		}
	}
	return metadata.NewOutgoingContext(ctx, out)
}
