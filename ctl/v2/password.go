package v2

import (
	"errors"
	"io"
	"strings"

	"golang.org/x/term"
)

// askPassword reads a password, from a terminal without showing it.
func (t *tool) askPassword(prompt string) (string, error) {
	t.printf("%s", prompt)
	if f, ok := isFile(t.Stdin); ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // a file descriptor
		b, err := term.ReadPassword(int(f.Fd())) //nolint:gosec // as above
		t.printf("\n")
		return string(b), err
	}
	line, err := readLine(t.Stdin)
	t.printf("\n")
	return line, err
}

// readLine reads no more than one line, since what follows may be for another
// program.
func readLine(r io.Reader) (string, error) {
	var line strings.Builder
	for b := make([]byte, 1); ; {
		n, err := r.Read(b)
		switch {
		case n > 0 && b[0] == '\n':
			return line.String(), nil
		case n > 0:
			line.WriteByte(b[0])
		case errors.Is(err, io.EOF):
			return line.String(), nil
		case err != nil:
			return "", err
		}
	}
}

// credentials are the name and the password of --username.
func (t *tool) credentials() (user, password string, err error) {
	if t.global.username == "" {
		return "", "", nil
	}
	user, password, given := strings.Cut(t.global.username, ":")
	if !given {
		password, err = t.askPassword("Password: ")
	}
	return user, password, err
}
