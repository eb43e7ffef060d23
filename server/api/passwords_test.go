package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/kvorum/kvorum/server/state"
)

func hashed(t testing.TB, p *passwords, password string) []byte {
	t.Helper()
	encoded, err := p.hash(context.Background(), password)
	if err != nil {
		t.Fatal(err)
	}
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// If this fails, an old password works after it was changed, or a wrong one
// works at all.
func TestPasswords(t *testing.T) {
	p, ctx := newPasswords(bcrypt.MinCost), context.Background()
	first, second := hashed(t, p, "secret"), hashed(t, p, "changed")
	again := hashed(t, p, "secret")
	for range 2 { // the second time from memory
		for _, c := range []struct {
			text     []byte
			password string
			want     error
		}{
			{first, "secret", nil}, {second, "changed", nil}, {again, "secret", nil},
			{second, "secret", state.ErrAuthFailed}, {first, "changed", state.ErrAuthFailed},
			{first, "", state.ErrAuthFailed}, {nil, "secret", state.ErrAuthFailed}, {nil, "", state.ErrAuthFailed},
		} {
			if err := p.verify(ctx, c.text, c.password); !errors.Is(err, c.want) {
				t.Errorf("%s with %q: %v, want %v", c.text, c.password, err, c.want)
			}
		}
	}
	if len(p.verified) != 3 {
		t.Errorf("%d marks, want one for each password that was right", len(p.verified))
	}
	if empty := hashed(t, p, ""); p.verify(ctx, empty, "") != nil {
		t.Error("an empty password is legal, but does not work")
	}
}

// If this fails, many logins of many users fill the memory of the server, or
// the memory of verified passwords stops working when it is full.
func TestVerifiedPasswordsAreBounded(t *testing.T) {
	p := newPasswords(bcrypt.MinCost)
	for i := range verifiedMax + 10 {
		p.remember(p.markOf([]byte("text"), fmt.Sprint(i)))
	}
	if len(p.verified) != verifiedMax || len(p.ring) != verifiedMax {
		t.Errorf("%d marks, %d in the ring, want %d", len(p.verified), len(p.ring), verifiedMax)
	}
	for i, want := range map[int]bool{0: false, 9: false, 10: true, verifiedMax + 9: true} {
		if got := p.remembers(p.markOf([]byte("text"), fmt.Sprint(i))); got != want {
			t.Errorf("password %d is remembered: %v, want %v", i, got, want)
		}
	}
}

// If this fails, a login whose client is gone still takes a processor.
func TestPasswordsWaitTheirTurn(t *testing.T) {
	p := newPasswords(bcrypt.MinCost)
	text := hashed(t, p, "secret")
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.verify(ctx, text, "secret"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func BenchmarkLoginPassword(b *testing.B) {
	p, ctx := newPasswords(bcrypt.DefaultCost), context.Background()
	text := hashed(b, p, "secret")
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			clear(p.verified)
			if err := p.verify(ctx, text, "secret"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("repeated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := p.verify(ctx, text, "secret"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
