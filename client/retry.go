package client

import (
	"context"
	"errors"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	retriesMax   = 100
	retryDelay   = 25 * time.Millisecond
	retrySlowest = time.Second
)

// RequireLeader marks ctx so that a member that sees no leader refuses the
// call, and ends a stream when it loses the leader.
func RequireLeader(ctx context.Context) context.Context {
	return context.WithValue(ctx, leaderKey{}, true)
}

type leaderKey struct{}

// repeatable says whether a call may be sent again after Unavailable. Writes
// may not: they could be done twice. (A call that found no connection at all
// has not been sent; it just waits for one, whatever it is.)
func repeatable(method string) bool {
	switch path.Base(method) {
	case "Range", "RangeStream", "MemberList", "Status", "Hash", "HashKV", "Alarm", "Snapshot", "MoveLeader",
		"LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases", "LeaseKeepAlive",
		"UserGet", "UserList", "RoleGet", "RoleList", "AuthStatus", "Authenticate":
		return true
	}
	return false
}

// unary is around every call: metadata, token, retries, typed errors.
func (c *Client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	authenticating := path.Base(method) == "Authenticate"
	renewed := false
	for attempt := 0; ; attempt++ {
		token := c.tokens.get()
		if authenticating {
			token = ""
		}
		raw := call(c.outgoing(ctx, token), method, req, reply, cc, opts...)
		if raw == nil {
			return nil
		}
		err := typed(ctx, raw)
		switch {
		case ctx.Err() != nil || attempt >= retriesMax:
			return err
		case !authenticating && !renewed && c.wantsToken(err):
			renewed = true
			if c.renew(ctx, token) != nil {
				return err
			}
			continue
		case errors.Is(err, ErrLearner) && attempt < len(c.Endpoints())-1:
		case status.Code(raw) == codes.Unavailable && repeatable(method):
		default:
			return err
		}
		c.log.Warn("retrying of unary invoker failed", "method", method, "attempt", attempt, "error", raw.Error())
		if pause(ctx, attempt) != nil {
			return err
		}
	}
}

// stream adds metadata and token; the owners of streams reopen them.
func (c *Client) stream(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(c.outgoing(ctx, c.tokens.get()), d, cc, method, opts...)
}

func (c *Client) outgoing(ctx context.Context, token string) context.Context {
	pairs := append(make([]string, 0, 6), "client-api-version", APIVersion)
	if ctx.Value(leaderKey{}) != nil || c.cfg.RequireLeader {
		pairs = append(pairs, "hasleader", "true")
	}
	if token != "" {
		pairs = append(pairs, "token", token)
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// pause waits before the next attempt, or until ctx ends.
func pause(ctx context.Context, attempt int) error {
	t := time.NewTimer(min(retryDelay*time.Duration(attempt+1), retrySlowest))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
