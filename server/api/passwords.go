package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/kvorum/kvorum/server/state"
)

// verifiedMax is how many verified passwords are remembered.
const verifiedMax = 4096

// passwords hashes and verifies passwords. Both are slow by intent, so only
// some processors may be at it, and a password that was verified once is
// remembered.
type passwords struct {
	cost  int
	slots chan struct{} // one per comparison that may run

	secret [sha256.Size]byte
	mu     sync.Mutex // guards the fields below
	// verified are marks of passwords together with the bcrypt text that they
	// belong to: when a password changes, so does the text, and the old mark
	// never matches again. A mark tells nothing about the password without the
	// secret, which never leaves the process.
	verified map[mark]struct{}
	ring     []mark // in order of age, from next on
	next     int
}

type mark [sha256.Size]byte

func newPasswords(cost int) *passwords {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost {
		cost = bcrypt.DefaultCost
	}
	p := &passwords{cost: cost, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), verified: map[mark]struct{}{}}
	_, _ = rand.Read(p.secret[:]) // never fails
	return p
}

// hash returns what a command carries for a password: base64 of its bcrypt
// text.
func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	if err := p.enter(ctx); err != nil {
		return "", err
	}
	defer p.leave()
	text, err := bcrypt.GenerateFromPassword([]byte(password), p.cost)
	if err != nil {
		return "", err // in the words that clients of etcd know
	}
	return base64.StdEncoding.EncodeToString(text), nil
}

// verify compares a password with a bcrypt text; state.ErrAuthFailed if it is
// another one.
func (p *passwords) verify(ctx context.Context, text []byte, password string) error {
	m := p.markOf(text, password)
	if p.remembers(m) {
		return nil
	}
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.leave()
	if p.remembers(m) { // verified while this one waited
		return nil
	}
	if err := bcrypt.CompareHashAndPassword(text, []byte(password)); err != nil {
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return state.ErrAuthFailed
		}
		return fmt.Errorf("%w: %w", state.ErrAuthFailed, err)
	}
	p.remember(m)
	return nil
}

func (p *passwords) enter(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *passwords) leave() { <-p.slots }

func (p *passwords) markOf(text []byte, password string) (m mark) {
	h := hmac.New(sha256.New, p.secret[:])
	h.Write(text) // of fixed length, so the two cannot run into each other
	h.Write([]byte{0})
	h.Write([]byte(password))
	h.Sum(m[:0])
	return m
}

func (p *passwords) remembers(m mark) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.verified[m]
	return ok
}

// remember forgets the oldest mark when there are too many.
func (p *passwords) remember(m mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.verified[m]; ok {
		return
	}
	if len(p.ring) < verifiedMax {
		p.ring = append(p.ring, m)
	} else {
		delete(p.verified, p.ring[p.next])
		p.ring[p.next] = m
		p.next = (p.next + 1) % verifiedMax
	}
	p.verified[m] = struct{}{}
}

// Login gives the caller that a name and a password stand for, for doors that
// ask for both with each request. state.ErrAuthFailed and its like if they do
// not fit.
func (s *Services) Login(ctx context.Context, name, password string) (state.Caller, error) {
	text, revision, err := s.machine.PasswordHash(name)
	if err != nil {
		return state.Caller{}, err
	}
	if err := s.passwords.verify(ctx, text, password); err != nil {
		return state.Caller{}, err
	}
	return state.Caller{User: name, AuthRevision: revision}, nil
}

// HashPassword gives what a command carries for a password.
func (s *Services) HashPassword(ctx context.Context, password string) (string, error) {
	return s.passwords.hash(ctx, password)
}
