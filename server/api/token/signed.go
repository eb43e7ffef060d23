package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kvorum/kvorum/server/state"
)

// signedTTLDefault is the life of a signed token whose ttl is not given.
const signedTTLDefault = 5 * time.Minute

// signed makes and checks JSON Web Tokens (RFC 7519). It remembers no token.
type signed struct {
	method jwt.SigningMethod
	ttl    time.Duration
	sign   any // nil: verify only
	verify any
	parser *jwt.Parser
}

// claims is the content of a token.
type claims struct {
	jwt.RegisteredClaims
	Username string `json:"username"`
	Revision uint64 `json:"revision"`
}

// signedOptions is what --auth-token says after "jwt,".
type signedOptions struct {
	method              jwt.SigningMethod
	public, private     []byte // contents of the files
	publicAt, privateAt string // their names
	ttl                 time.Duration
}

func newSigned(text string) (*signed, error) {
	o, err := parseSigned(text)
	if err != nil {
		return nil, err
	}
	s := &signed{method: o.method, ttl: o.ttl}
	// A token must be signed by the one method that was chosen: else somebody
	// could sign with the public key as an HMAC secret.
	s.parser = jwt.NewParser(jwt.WithValidMethods([]string{o.method.Alg()}), jwt.WithExpirationRequired())
	if s.sign, s.verify, err = o.keys(); err != nil {
		return nil, err
	}
	return s, s.selfCheck()
}

// parseSigned reads key=value pairs divided by commas.
func parseSigned(text string) (signedOptions, error) {
	o := signedOptions{ttl: signedTTLDefault}
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if pair == "" {
			continue
		}
		if !ok || value == "" {
			return o, fmt.Errorf("option %q has no value; write name=value", name)
		}
		if seen[name] {
			return o, fmt.Errorf("option %s is given twice", name)
		}
		seen[name] = true
		if err := o.set(name, value); err != nil {
			return o, fmt.Errorf("option %s=%s: %w", name, value, err)
		}
	}
	if o.method == nil {
		return o, errors.New("option sign-method is missing; it must be one of " + methodsAllowed)
	}
	if o.publicAt == "" && o.privateAt == "" {
		return o, errors.New("option priv-key or pub-key is missing; give the file of a key")
	}
	return o, nil
}

const methodsAllowed = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA HS256 HS384 HS512"

func (o *signedOptions) set(name, value string) (err error) {
	switch name {
	case "sign-method":
		if !strings.Contains(" "+methodsAllowed+" ", " "+value+" ") {
			return errors.New("must be one of " + methodsAllowed)
		}
		o.method = jwt.GetSigningMethod(value)
	case "pub-key":
		o.publicAt = value
		o.public, err = os.ReadFile(value)
	case "priv-key":
		o.privateAt = value
		o.private, err = os.ReadFile(value)
	case "ttl":
		o.ttl, err = time.ParseDuration(value)
		if err == nil && o.ttl <= 0 {
			err = errors.New("must be longer than 0, as in 10m")
		}
	default:
		err = errors.New("unknown; the options are sign-method, pub-key, priv-key and ttl")
	}
	return err
}

// keys decodes the key files. Without a private key, sign is nil.
func (o *signedOptions) keys() (sign, verify any, err error) {
	if _, ok := o.method.(*jwt.SigningMethodHMAC); ok {
		return o.secret()
	}
	if o.privateAt != "" {
		private, err := o.decodePrivate()
		if err != nil {
			return nil, nil, fmt.Errorf("option priv-key=%s: not a private key for %s: %w", o.privateAt, o.method.Alg(), err)
		}
		sign, verify = private, private.Public()
	}
	if o.publicAt != "" {
		if verify, err = o.decodePublic(); err != nil {
			return nil, nil, fmt.Errorf("option pub-key=%s: not a public key for %s: %w", o.publicAt, o.method.Alg(), err)
		}
	}
	return sign, verify, nil
}

// secret is the one key of an HMAC, whichever option names it.
func (o *signedOptions) secret() (sign, verify any, err error) {
	key := o.private
	switch {
	case o.privateAt == "":
		key = o.public
	case o.publicAt != "" && !bytes.Equal(o.public, o.private):
		return nil, nil, fmt.Errorf("options priv-key=%s and pub-key=%s differ; %s has one secret", o.privateAt, o.publicAt, o.method.Alg())
	}
	if len(key) == 0 {
		return nil, nil, fmt.Errorf("option priv-key=%s: the secret is empty", o.privateAt)
	}
	return key, key, nil
}

func (o *signedOptions) decodePrivate() (crypto.Signer, error) {
	switch o.method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return jwt.ParseRSAPrivateKeyFromPEM(o.private)
	case *jwt.SigningMethodECDSA:
		return jwt.ParseECPrivateKeyFromPEM(o.private)
	}
	key, err := jwt.ParseEdPrivateKeyFromPEM(o.private)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, jwt.ErrNotEdPrivateKey
	}
	return signer, nil
}

func (o *signedOptions) decodePublic() (any, error) {
	switch o.method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return jwt.ParseRSAPublicKeyFromPEM(o.public)
	case *jwt.SigningMethodECDSA:
		return jwt.ParseECPublicKeyFromPEM(o.public)
	}
	return jwt.ParseEdPublicKeyFromPEM(o.public)
}

// selfCheck finds at start what would otherwise fail the first login: keys that
// are no pair, or a curve that the method does not use.
func (s *signed) selfCheck() error {
	if curve, ok := s.method.(*jwt.SigningMethodECDSA); ok {
		if key, ok := s.verify.(*ecdsa.PublicKey); ok && key.Curve.Params().BitSize != curve.CurveBits {
			return fmt.Errorf("option sign-method=%s needs a key of %d bits, not %d", s.method.Alg(), curve.CurveBits, key.Curve.Params().BitSize)
		}
	}
	if s.sign == nil {
		return nil
	}
	text, err := s.Make(Bearer{User: "self-check", Revision: 1}, "")
	if err != nil {
		return fmt.Errorf("options priv-key and sign-method do not fit: %w", err)
	}
	if _, err := s.Bearer(text); err != nil {
		return errors.New("options priv-key and pub-key are not a pair of keys")
	}
	return nil
}

// Seed implements Tokens.
func (s *signed) Seed() (string, error) {
	if s.sign == nil {
		return "", ErrVerifyOnly
	}
	return "", nil
}

// Make implements Tokens.
func (s *signed) Make(b Bearer, _ string) (string, error) {
	if s.sign == nil {
		return "", ErrVerifyOnly
	}
	c := claims{Username: b.User, Revision: b.Revision}
	c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(s.ttl))
	text, err := jwt.NewWithClaims(s.method, c).SignedString(s.sign)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text, nil
}

// Bearer implements Tokens. What is wrong with a token is not told.
func (s *signed) Bearer(text string) (Bearer, error) {
	var c claims
	if _, err := s.parser.ParseWithClaims(text, &c, func(*jwt.Token) (any, error) { return s.verify, nil }); err != nil {
		return Bearer{}, ErrInvalid
	}
	if c.Username == "" || c.Revision == 0 {
		return Bearer{}, ErrInvalid
	}
	return Bearer{User: c.Username, Revision: c.Revision}, nil
}

// AssignedAt implements Tokens.
func (*signed) AssignedAt(string) uint64 { return 0 }

// Follow implements Tokens: the auth revision in a token makes it void.
func (*signed) Follow(state.TokenChange) {}
