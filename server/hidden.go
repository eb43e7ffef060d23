package server

import (
	"expvar"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"

	"golang.org/x/net/trace"
)

// hidden stands in the place of what must not be read.
const hidden = "<hidden>"

// secretFlags are flags whose values must not be logged.
func secretFlags() []string { return []string{"discovery-password", "discovery-user"} }

// withoutSecrets is the command line as it may be shown.
func withoutSecrets(args []string) []string {
	out := append([]string{}, args...)
	for i, arg := range out {
		out[i] = hideUsers(arg)
		name, _, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		for _, secret := range secretFlags() {
			switch {
			case name != secret || !strings.HasPrefix(arg, "-"):
			case given:
				out[i] = "--" + name + "=" + hidden
			case i+1 < len(out):
				out[i+1] = hidden
			}
		}
	}
	return out
}

// hideUsers is a text without the users and passwords that stand in its URLs.
func hideUsers(text string) string {
	return regexp.MustCompile(`://[^/\s"]*@`).ReplaceAllString(text, "://"+hidden+"@")
}

// usageWriter is where mistakes in flags are told.
type usageWriter struct{ to io.Writer }

// Write is io.Writer's.
func (w usageWriter) Write(p []byte) (int, error) {
	_, err := io.WriteString(w.to, hideUsers(string(p)))
	return len(p), err
}

// hidingError is an error whose text shows no user of a URL.
type hidingError struct{ error }

// Error is the error's.
func (e hidingError) Error() string { return hideUsers(e.error.Error()) }

// Unwrap is for errors.Is.
func (e hidingError) Unwrap() error { return e.error }

// serveVars answers /debug/vars as expvar does, with the command line as it may
// be shown.
func serveVars(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	before := "{\n"
	expvar.Do(func(v expvar.KeyValue) {
		value := v.Value.String()
		if v.Key == "cmdline" {
			value = expvar.Func(func() any { return withoutSecrets(os.Args) }).String()
		}
		fmt.Fprintf(w, "%s%q: %s", before, v.Key, value)
		before = ",\n"
	})
	fmt.Fprint(w, "\n}\n")
}

// serveCommandLine answers /debug/pprof/cmdline.
func serveCommandLine(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	fmt.Fprint(w, strings.Join(withoutSecrets(os.Args), "\x00"))
}

// serveRequests answers /debug/requests, to this machine alone, without what the
// requests say: passwords and values are in it.
func serveRequests(w http.ResponseWriter, r *http.Request) {
	if mayTrace(w, r) {
		trace.Render(w, r, false)
	}
}

// serveEvents answers /debug/events.
func serveEvents(w http.ResponseWriter, r *http.Request) {
	if mayTrace(w, r) {
		trace.RenderEvents(w, r, false)
	}
}

func mayTrace(w http.ResponseWriter, r *http.Request) bool {
	may, _ := trace.AuthRequest(r)
	if !may {
		http.Error(w, "not allowed", http.StatusUnauthorized)
		return false
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	return true
}
