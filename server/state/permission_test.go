package state

import (
	"flag"
	"math/rand"
	"testing"
	"time"

	"github.com/kvorum/kvorum/proto/authpb"
)

var seedFlag = flag.Int64("seed", 0, "seed of the random tests; 0 draws one")

// randomOf returns the source of a random test and says how to replay it.
func randomOf(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("seed %d; replay: go test ./server/state -run '^%s$' -args -seed=%d", seed, t.Name(), seed)
	return rand.New(rand.NewSource(seed))
}

// modelKeys are all keys of up to three bytes 0, 1 and 2: short enough to try
// every one, with 0 since it is the successor of a single key.
func modelKeys() []string {
	keys := []string{""}
	for from := 0; len(keys[from]) < 3; from++ {
		for b := range 3 {
			keys = append(keys, keys[from]+string(rune(b)))
		}
	}
	return keys
}

// inRange is the meaning of key and range end, key by key.
func inRange(key, from, end string) bool {
	switch {
	case end == "":
		return key == from
	case end == "\x00":
		return key >= from
	}
	return key >= from && key < end
}

// If this fails, a user may read or write keys that nobody granted, or is
// denied keys that were: a range spread over several permissions is decided
// wrongly.
func TestMergedRangesAgreeWithModel(t *testing.T) {
	random := randomOf(t)
	keys := modelKeys()
	// One step finer than what permissions and requests are made of, so that
	// the model can see a gap behind a single key.
	var probes []string
	for _, k := range keys {
		probes = append(probes, k, k+"\x00", k+"\x01")
	}
	pick := func() string { return keys[random.Intn(len(keys))] }
	end := func() string { return [...]string{"", "\x00", pick(), pick()}[random.Intn(4)] }
	allowed, denied := 0, 0
	for range 20_000 {
		role := &authpb.Role{}
		for range random.Intn(6) {
			p := &authpb.Permission{Key: []byte(pick()), RangeEnd: []byte(end())}
			if validRange(p.Key, p.RangeEnd) {
				role.KeyPermission = append(role.KeyPermission, p)
			}
		}
		u := newUser(&authpb.User{Roles: []string{"r"}}, map[string]*authpb.Role{"r": role})
		from, to := pick(), end()
		want, void := true, true
		for _, k := range probes {
			if !inRange(k, from, to) {
				continue
			}
			void = false
			want = want && modelGrants(role, k)
		}
		if void {
			want = modelGrants(role, from)
		}
		if got := u.read.allows([]byte(from), []byte(to)); got != want {
			t.Fatalf("range %q to %q under %v: allowed %v, want %v", from, to, role.KeyPermission, got, want)
		}
		if want {
			allowed++
		} else {
			denied++
		}
	}
	if allowed < 1000 || denied < 1000 {
		t.Fatalf("one-sided test: %d allowed, %d denied", allowed, denied)
	}
}

func modelGrants(role *authpb.Role, key string) bool {
	for _, p := range role.KeyPermission {
		if inRange(key, string(p.Key), string(p.RangeEnd)) {
			return true
		}
	}
	return false
}
