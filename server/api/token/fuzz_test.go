package token

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzSignedOptions: if it fails, a broken key file ends a member with a panic.
func FuzzSignedOptions(f *testing.F) {
	for _, method := range strings.Fields(methodsAllowed) {
		f.Add(method, []byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"))
	}
	f.Fuzz(func(t *testing.T, method string, key []byte) {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, key, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, option := range []string{"priv-key", "pub-key"} {
			if s, err := newSigned("sign-method=" + method + "," + option + "=" + path); err == nil && s.verify == nil {
				t.Errorf("%s: no key, and no error", method)
			}
		}
	})
}

// FuzzTokens: if it fails, somebody is let in with a token that nobody made, or
// ends the process with one.
func FuzzTokens(f *testing.F) {
	path := filepath.Join(f.TempDir(), "key")
	if err := os.WriteFile(path, []byte("a key that nobody knows"), 0o600); err != nil {
		f.Fatal(err)
	}
	all := []Tokens{}
	for _, spec := range []string{"simple", "jwt,sign-method=HS256,priv-key=" + path} {
		tokens, err := New(Config{Spec: spec})
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, tokens)
	}
	good, err := all[1].Make(Bearer{User: "root", Revision: 1}, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("abc.7")
	f.Add("eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MX0.")
	f.Fuzz(func(t *testing.T, text string) {
		for _, tokens := range all {
			_ = tokens.AssignedAt(text)
			if b, err := tokens.Bearer(text); err == nil && text != good {
				t.Errorf("%q is %+v", text, b)
			}
		}
	})
}
