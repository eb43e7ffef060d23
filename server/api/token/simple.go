package token

import (
	"container/list"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kvorum/kvorum/server/state"
)

const (
	seedLetters = 16
	// simpleMax bounds the memory that logins can take. The tokens that were not
	// used for longest go first.
	simpleMax = 1 << 18
)

// simple are the simple tokens of one member.
//
// Invariant: lru is in the order of last use. As all tokens live equally long
// after their last use, the first to run out is always at its end.
type simple struct {
	ttl time.Duration
	max int

	mu     sync.Mutex // guards the fields below and the elements of lru
	byText map[string]*list.Element
	lru    *list.List // of *assigned
}

// assigned is a token that stands for a user.
type assigned struct {
	text, user string
	expires    time.Time
}

func newSimple(ttl time.Duration) *simple {
	return &simple{ttl: ttl, max: simpleMax, byText: map[string]*list.Element{}, lru: list.New()}
}

// Seed implements Tokens.
func (s *simple) Seed() (string, error) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	// Bytes from here on are drawn again: each letter must be equally likely.
	const fair = 256 - 256%len(letters)
	seed := make([]byte, 0, seedLetters)
	var random [2 * seedLetters]byte
	for len(seed) < seedLetters {
		if _, err := rand.Read(random[:]); err != nil {
			return "", fmt.Errorf("draw token: %w", err)
		}
		for _, b := range random {
			if int(b) < fair && len(seed) < seedLetters {
				seed = append(seed, letters[int(b)%len(letters)])
			}
		}
	}
	return string(seed), nil
}

// Make implements Tokens: the token is the one that all members have been told.
func (s *simple) Make(_ Bearer, assigned string) (string, error) { return assigned, nil }

// Bearer implements Tokens and prolongs the token's life.
func (s *simple) Bearer(text string) (Bearer, error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.byText[text]
	if !ok {
		return Bearer{}, ErrInvalid
	}
	t := e.Value.(*assigned)
	if !now.Before(t.expires) {
		s.drop(e)
		return Bearer{}, ErrInvalid
	}
	t.expires = now.Add(s.ttl)
	s.lru.MoveToFront(e)
	return Bearer{User: t.user}, nil
}

// AssignedAt implements Tokens: the index is what follows the last dot.
func (s *simple) AssignedAt(text string) uint64 {
	at := strings.LastIndexByte(text, '.')
	if at != seedLetters {
		return 0
	}
	index, err := strconv.ParseUint(text[at+1:], 10, 64)
	if err != nil {
		return 0
	}
	return index
}

// Follow implements Tokens.
func (s *simple) Follow(change state.TokenChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch change.Kind {
	case state.TokenAssigned:
		s.assign(change.Token, change.User, time.Now())
	case state.UserTokensVoid:
		for e := s.lru.Front(); e != nil; {
			next := e.Next()
			if e.Value.(*assigned).user == change.User {
				s.drop(e)
			}
			e = next
		}
	case state.EveryTokensVoid:
		clear(s.byText)
		s.lru.Init()
	}
}

// assign also drops what has run out. The caller holds mu.
func (s *simple) assign(text, user string, now time.Time) {
	for e := s.lru.Back(); e != nil; e = s.lru.Back() {
		if s.lru.Len() < s.max && now.Before(e.Value.(*assigned).expires) {
			break
		}
		s.drop(e)
	}
	s.byText[text] = s.lru.PushFront(&assigned{text: text, user: user, expires: now.Add(s.ttl)})
}

func (s *simple) drop(e *list.Element) {
	delete(s.byText, e.Value.(*assigned).text)
	s.lru.Remove(e)
}
