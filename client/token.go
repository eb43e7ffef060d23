package client

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// tokens holds the token of the configured user.
type tokens struct {
	fixed string // given by the caller, never renewed

	mu    sync.Mutex
	value string // guarded by mu

	renewing sync.Mutex // held while a new one is fetched, so that only one is
}

func (t *tokens) get() string {
	if t.fixed != "" {
		return t.fixed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.value
}

func (t *tokens) set(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.value = value
}

// login gets the first token. A cluster without authentication is no error.
func (c *Client) login() error {
	timeout := c.cfg.DialTimeout
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	defer cancel()
	err := c.renew(ctx, "")
	if errors.Is(err, ErrAuthNotEnabled) {
		return nil
	}
	return err
}

// renew replaces the token old, unless somebody else already did.
func (c *Client) renew(ctx context.Context, old string) error {
	c.tokens.renewing.Lock()
	defer c.tokens.renewing.Unlock()
	if c.tokens.get() != old {
		return nil
	}
	r, err := c.Auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: c.cfg.User, Password: c.cfg.Password})
	if err != nil {
		return err
	}
	c.tokens.set(r.Token)
	return nil
}

// wantsToken reports whether a new token can cure err.
func (c *Client) wantsToken(err error) bool {
	if c.cfg.User == "" || c.tokens.fixed != "" {
		return false
	}
	return errors.Is(err, ErrInvalidToken) || errors.Is(err, ErrOldAuthRevision) || errors.Is(err, ErrUserEmpty)
}
