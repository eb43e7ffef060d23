package token

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kvorum/kvorum/server/state"
)

var (
	// ErrInvalid: the token is unknown, has run out or was not made here. Log in
	// again.
	ErrInvalid = errors.New("etcdserver: invalid auth token")
	// ErrVerifyOnly: this member has only the public key. Log in at a member that
	// has the private one.
	ErrVerifyOnly = errors.New("auth: token signing attempted with verify-only key")
)

// SimpleTTLDefault is how long an unused simple token lives.
const SimpleTTLDefault = 300 * time.Second

// Config chooses the kind of tokens.
type Config struct {
	// Spec is the value of --auth-token: "simple", or "jwt" and options.
	Spec string
	// SimpleTTL is how long an unused simple token lives; 0 is the default.
	SimpleTTL time.Duration
}

// Bearer is whom a token stands for.
type Bearer struct {
	User string
	// Revision is the auth revision under which the token was made; 0 for tokens
	// that stay good when users change.
	Revision uint64
}

// Tokens is one kind of tokens. All methods may be called from any goroutine.
type Tokens interface {
	// Seed is what the replicated login of a user carries: the random part of a
	// simple token, "" for signed ones. ErrVerifyOnly if no token can be made.
	Seed() (string, error)
	// Make gives a user who has logged in a token: the one that the replicated
	// login assigned, or a signed one.
	Make(b Bearer, assigned string) (string, error)
	// Bearer is whom a token stands for; using it may prolong its life.
	// ErrInvalid if it stands for nobody.
	Bearer(text string) (Bearer, error)
	// AssignedAt is the index of the log entry that assigned the token, 0 for
	// tokens that need no entry: a member that has not applied it cannot know
	// the token.
	AssignedAt(text string) uint64
	// Follow does what an applied command says about tokens.
	Follow(change state.TokenChange)
}

// New makes the tokens that the configuration asks for. Errors name the flag and
// the option.
func New(c Config) (Tokens, error) {
	kind, options, _ := strings.Cut(c.Spec, ",")
	switch kind {
	case "simple", "":
		if options != "" {
			return nil, fmt.Errorf("--auth-token=%s: simple takes no options; use --auth-token-ttl for the life of tokens", c.Spec)
		}
		if c.SimpleTTL <= 0 {
			c.SimpleTTL = SimpleTTLDefault
		}
		return newSimple(c.SimpleTTL), nil
	case "jwt":
		tokens, err := newSigned(options)
		if err != nil {
			return nil, fmt.Errorf("--auth-token=jwt: %w", err)
		}
		return tokens, nil
	}
	return nil, fmt.Errorf("--auth-token=%q: must be simple, or jwt,sign-method=<method>,priv-key=<file>,pub-key=<file>,ttl=<duration>", c.Spec)
}
