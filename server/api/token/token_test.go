package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kvorum/kvorum/server/state"
)

func assign(s Tokens, user, text string) {
	s.Follow(state.TokenChange{Kind: state.TokenAssigned, User: user, Token: text})
}

func bearer(t *testing.T, s Tokens, text, want string) {
	t.Helper()
	b, err := s.Bearer(text)
	if want == "" && !errors.Is(err, ErrInvalid) {
		t.Errorf("%s stands for %q (%v), want nobody", text, b.User, err)
	}
	if want != "" && (err != nil || b.User != want) {
		t.Errorf("%s stands for %q (%v), want %s", text, b.User, err, want)
	}
}

// If this fails, a token that nobody uses works for ever, or one in use ends.
func TestSimpleTokensRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimple(time.Minute)
		assign(s, "a", "one.1")
		assign(s, "b", "two.2")
		for range 5 {
			time.Sleep(50 * time.Second)
			bearer(t, s, "one.1", "a")
		}
		bearer(t, s, "two.2", "")
		time.Sleep(time.Minute)
		bearer(t, s, "one.1", "")
		if len(s.byText) != 0 || s.lru.Len() != 0 {
			t.Errorf("%d tokens and %d places stay in memory", len(s.byText), s.lru.Len())
		}
	})
}

// If this fails, a stolen token works on after the password was changed.
func TestSimpleTokensEnd(t *testing.T) {
	s := newSimple(time.Minute)
	assign(s, "a", "one.1")
	assign(s, "a", "two.2")
	assign(s, "b", "three.3")
	s.Follow(state.TokenChange{Kind: state.UserTokensVoid, User: "a"})
	bearer(t, s, "one.1", "")
	bearer(t, s, "two.2", "")
	bearer(t, s, "three.3", "b")
	s.Follow(state.TokenChange{Kind: state.EveryTokensVoid})
	bearer(t, s, "three.3", "")
}

// If this fails, logins that are never used fill the memory of the server.
func TestSimpleTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimple(time.Minute)
		s.max = 3
		for i := range 3 {
			assign(s, "a", fmt.Sprint(i))
		}
		bearer(t, s, "0", "a") // used, so it is not the next to go
		assign(s, "a", "3")
		bearer(t, s, "1", "")
		bearer(t, s, "0", "a")
		time.Sleep(time.Minute)
		assign(s, "a", "4")
		if len(s.byText) != 1 || s.lru.Len() != 1 {
			t.Errorf("%d tokens and %d places, want those that ran out to be gone", len(s.byText), s.lru.Len())
		}
	})
}

// If this fails, tokens can be guessed, or members wait for entries that never
// come.
func TestSeedAndIndex(t *testing.T) {
	s := newSimple(time.Minute)
	seen := map[string]bool{}
	for range 200 {
		seed, err := s.Seed()
		if err != nil || seen[seed] || !regexp.MustCompile(`^[A-Za-z]{16}$`).MatchString(seed) {
			t.Fatalf("seed %q, %v", seed, err)
		}
		seen[seed] = true
		if at := s.AssignedAt(seed + ".199"); at != 199 {
			t.Fatalf("index %d, want 199", at)
		}
	}
	for _, text := range []string{"", ".", "x.1", "wUhevOASUpPAsYMD", "wUhevOASUpPAsYMD.", "wUhevOASUpPAsYMD.-1", "wUhevOASUpPAsYMD.99999999999999999999"} {
		if at := s.AssignedAt(text); at != 0 {
			t.Errorf("%q was assigned at %d", text, at)
		}
	}
}

// keyFiles writes a private and a public key and returns the names.
func keyFiles(t *testing.T, private crypto.Signer) (privateAt, publicAt string) {
	t.Helper()
	privateBytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	publicBytes, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateBytes})),
		writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicBytes}))
}

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// keys are one key of each kind; made once, as RSA takes its time.
type keys struct {
	rsa, ec, ed map[string]string // "priv" and "pub"
	secret      string
}

func newKeys(t *testing.T) keys {
	t.Helper()
	files := func(k crypto.Signer, err error) map[string]string {
		if err != nil {
			t.Fatal(err)
		}
		private, public := keyFiles(t, k)
		return map[string]string{"priv": private, "pub": public}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	rsaKey, rsaErr := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, ecErr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return keys{rsa: files(rsaKey, rsaErr), ec: files(ecKey, ecErr), ed: files(ed, err), secret: writeFile(t, []byte("a long secret that nobody knows"))}
}

// If this fails, logins fail with one of the signing methods, or a token works
// without the signature that makes it one.
func TestSignedTokens(t *testing.T) {
	k := newKeys(t)
	for method, files := range map[string]map[string]string{
		"RS256": k.rsa, "RS384": k.rsa, "RS512": k.rsa, "PS256": k.rsa, "PS384": k.rsa, "PS512": k.rsa,
		"ES256": k.ec, "EdDSA": k.ed, "HS256": {"priv": k.secret, "pub": k.secret}, "HS384": {"priv": k.secret, "pub": k.secret}, "HS512": {"priv": k.secret, "pub": k.secret},
	} {
		s, err := New(Config{Spec: fmt.Sprintf("jwt,sign-method=%s,priv-key=%s,pub-key=%s", method, files["priv"], files["pub"])})
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		text, err := s.Make(Bearer{User: "alice", Revision: 7}, "")
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		if b, err := s.Bearer(text); err != nil || b != (Bearer{User: "alice", Revision: 7}) {
			t.Errorf("%s: %+v, %v", method, b, err)
		}
		head, rest, _ := strings.Cut(text, ".")
		claims, signature, _ := strings.Cut(rest, ".")
		other := []byte(signature)
		other[len(other)/2] ^= 1 // another letter
		for _, bad := range []string{"", "x", head + "." + claims + ".", head + "." + claims + "." + string(other), claims} {
			bearer(t, s, bad, "")
		}
		if strings.HasPrefix(method, "HS") {
			continue
		}
		verifier, err := New(Config{Spec: fmt.Sprintf("jwt,sign-method=%s,pub-key=%s", method, files["pub"])})
		if err != nil {
			t.Errorf("%s, verify only: %v", method, err)
			continue
		}
		bearer(t, verifier, text, "alice")
		if _, err := verifier.Seed(); !errors.Is(err, ErrVerifyOnly) {
			t.Errorf("%s: a member with the public key only gives out tokens: %v", method, err)
		}
	}
}

// If this fails, anybody can sign with the public key as an HMAC secret, or
// make a token that needs no signature or never runs out.
func TestForgedTokens(t *testing.T) {
	k := newKeys(t)
	s, err := New(Config{Spec: fmt.Sprintf("jwt,sign-method=RS256,priv-key=%s", k.rsa["priv"])})
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(k.rsa["pub"])
	if err != nil {
		t.Fatal(err)
	}
	own := s.(*signed)
	good := jwt.MapClaims{"username": "root", "revision": 1, "exp": time.Now().Add(time.Hour).Unix()}
	make := func(method jwt.SigningMethod, c jwt.MapClaims, key any) string {
		text, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	bearer(t, s, make(jwt.SigningMethodRS256, good, own.sign), "root")
	for what, text := range map[string]string{
		"signed with the public key": make(jwt.SigningMethodHS256, good, public),
		"not signed":                 make(jwt.SigningMethodNone, good, jwt.UnsafeAllowNoneSignatureType),
		"other method":               make(jwt.SigningMethodPS256, good, own.sign),
		"endless":                    make(jwt.SigningMethodRS256, jwt.MapClaims{"username": "root", "revision": 1}, own.sign),
		"run out":                    make(jwt.SigningMethodRS256, jwt.MapClaims{"username": "root", "revision": 1, "exp": 1}, own.sign),
		"no user":                    make(jwt.SigningMethodRS256, jwt.MapClaims{"revision": 1, "exp": time.Now().Add(time.Hour).Unix()}, own.sign),
		"no revision":                make(jwt.SigningMethodRS256, jwt.MapClaims{"username": "root", "exp": time.Now().Add(time.Hour).Unix()}, own.sign),
	} {
		if b, err := s.Bearer(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: stands for %+v, %v", what, b, err)
		}
	}
}

// If this fails, a token lives longer or shorter than the operator said.
func TestSignedTokensRunOut(t *testing.T) {
	secret := writeFile(t, []byte("secret"))
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Spec: "jwt,sign-method=HS256,ttl=10m,priv-key=" + secret})
		if err != nil {
			t.Fatal(err)
		}
		text, err := s.Make(Bearer{User: "a", Revision: 1}, "")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute - 2*time.Second)
		bearer(t, s, text, "a")
		time.Sleep(3 * time.Second)
		bearer(t, s, text, "")
	})
}

// If this fails, an operator's mistake in --auth-token is found by the first
// user who cannot log in.
func TestBadOptions(t *testing.T) {
	k := newKeys(t)
	otherKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, otherPublic := keyFiles(t, otherKey)
	for _, c := range []struct{ spec, want string }{
		{"bogus", `--auth-token="bogus": must be simple, or jwt`},
		{"simple,ttl=3m", "simple takes no options"},
		{"jwt", "option sign-method is missing"},
		{"jwt,sign-method=RS256", "option priv-key or pub-key is missing"},
		{"jwt,sign-method=none,priv-key=" + k.secret, "option sign-method=none: must be one of RS256"},
		{"jwt,sign-method=RS256,priv-key=/does/not/exist", "option priv-key=/does/not/exist: open"},
		{"jwt,sign-method=RS256,pub-key=" + k.secret, "not a public key for RS256"},
		{"jwt,sign-method=RS256,priv-key=" + k.ec["priv"], "not a private key for RS256"},
		{"jwt,sign-method=EdDSA,priv-key=" + k.ec["priv"], "not a private key for EdDSA"},
		{"jwt,sign-method=ES384,priv-key=" + k.ec["priv"], "option sign-method=ES384 needs a key of 384 bits, not 256"},
		{"jwt,sign-method=RS256,priv-key=" + k.rsa["priv"] + ",pub-key=" + otherPublic, "priv-key and pub-key are not a pair"},
		{"jwt,sign-method=HS256,priv-key=" + k.secret + ",pub-key=" + k.rsa["pub"], "HS256 has one secret"},
		{"jwt,sign-method=HS256,priv-key=" + writeFile(t, nil), "the secret is empty"},
		{"jwt,sign-method=HS256,ttl=fast,priv-key=" + k.secret, `option ttl=fast: time: invalid duration`},
		{"jwt,sign-method=HS256,ttl=-1s,priv-key=" + k.secret, "option ttl=-1s: must be longer than 0"},
		{"jwt,sign-method=HS256,colour=red,priv-key=" + k.secret, "option colour=red: unknown"},
		{"jwt,sign-method", `option "sign-method" has no value`},
		{"jwt,ttl=1s,ttl=2s", "option ttl is given twice"},
	} {
		if _, err := New(Config{Spec: c.spec}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--auth-token") {
			t.Errorf("%s: error %v, want one with %q", c.spec, err, c.want)
		}
	}
}

func BenchmarkSimpleBearer(b *testing.B) {
	s := newSimple(time.Minute)
	for i := range 1000 {
		assign(s, "user", fmt.Sprintf("wUhevOASUpPAsYMD.%d", i))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Bearer("wUhevOASUpPAsYMD.500"); err != nil {
			b.Fatal(err)
		}
	}
}
