package server

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// allowAll in --cors or --host-whitelist, as an empty list, allows everything.
const allowAll = "*"

// parseList reads a list by commas.
func parseList(to *[]string) func(string) error {
	return func(s string) error {
		*to = nil
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*to = append(*to, part)
			}
		}
		return nil
	}
}

func allowed(list []string, what string) bool {
	return len(list) == 0 || slices.Contains(list, allowAll) || slices.Contains(list, what)
}

// access lets a request through if it was made to a host name of
// --host-whitelist, and tells browsers which pages may read the answer. The name
// matters in the clear alone: there a page of anyone can name us as its own host
// (DNS rebinding); under TLS the certificate would not fit.
func (s *Server) access(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostname(r.Host); r.TLS == nil && !allowed(s.cfg.HostWhitelist, host) {
			w.Header().Set("Connection", "close")
			text := fmt.Sprintf("The host name %q is not allowed here. Start the server with --host-whitelist %s to allow it, or use TLS.", host, host)
			http.Error(w, text, http.StatusMisdirectedRequest)
			return
		}
		s.allowOrigin(w.Header(), r.Header.Get("Origin"))
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func hostname(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.Trim(hostport, "[]") // without a port
	}
	return host
}

// allowOrigin writes the headers for pages of an origin in --cors.
func (s *Server) allowOrigin(h http.Header, origin string) {
	answer := allowAll
	if !allowed(s.cfg.CORS, allowAll) {
		h.Add("Vary", "Origin")
		if !allowed(s.cfg.CORS, origin) {
			return
		}
		answer = origin
	}
	values := []string{"POST, GET, OPTIONS, PUT, DELETE", answer, "accept, content-type, authorization"}
	h["Access-Control-Allow-Methods"] = values[0:1:1]
	h["Access-Control-Allow-Origin"] = values[1:2:2]
	h["Access-Control-Allow-Headers"] = values[2:3:3]
}
