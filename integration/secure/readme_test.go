package secure

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// If this fails, someone who follows the README does not get a secure cluster.
func TestReadmeMakesASecureCluster(t *testing.T) {
	s, out := start(t)
	for _, want := range []string{"CN=m1", "CN=root", "days left", "OK\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the commands did not print %q", want)
		}
	}
	for _, endpoint := range s.endpoints() {
		if !strings.Contains(out, endpoint+" is healthy") {
			t.Errorf("%s is not healthy:\n%s", endpoint, out)
		}
	}
	if t.Failed() {
		return
	}
	for _, port := range append(slices.Clone(s.clients), s.peers...) {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if answer, err := http.Get("http://" + address + "/health"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				t.Errorf("%s answers in the clear", address)
			}
		}
		s.refuses(address, &tls.Config{InsecureSkipVerify: true}, "certificate required") //nolint:gosec // a stranger does not know the authority
	}
}

// refuses: the member ends a connection with this configuration, with an alert
// that says why.
func (s *site) refuses(address string, c *tls.Config, why string) {
	s.t.Helper()
	conn, err := tls.Dial("tcp", address, c)
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1)) // under TLS 1.3 a refusal arrives with the first read
	}
	if err == nil || !strings.Contains(err.Error(), why) {
		s.t.Errorf("%s: %v, want a refusal because of: %s", address, err, why)
	}
}
