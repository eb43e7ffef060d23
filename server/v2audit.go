package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/kvorum/kvorum/server/audit"
)

// http makes the lines of requests that do not come by gRPC: those of the v2 API.
// The user is the one that the request names; the code says whether the member
// has believed it.
func (a *auditor) http(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, counted := time.Now(), &countedAnswer{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(counted, r)
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		if a.onlyWrites && reads && counted.code < http.StatusBadRequest {
			return
		}
		user, _, _ := r.BasicAuth()
		revision, _ := strconv.ParseInt(w.Header().Get("X-Etcd-Index"), 10, 64)
		line := audit.Record{
			Time: began, Took: time.Since(began), User: user, Remote: r.RemoteAddr, Operation: "v2/" + r.Method, Key: []byte(r.URL.Path),
			Revision: revision, Code: strconv.Itoa(counted.code), BytesIn: int(max(r.ContentLength, 0)), BytesOut: counted.bytes,
		}
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			line.CommonName = r.TLS.VerifiedChains[0][0].Subject.CommonName
		}
		a.Write(&line)
	})
}

// countedAnswer counts the bytes of an answer's body and keeps its code.
type countedAnswer struct {
	http.ResponseWriter
	code, bytes int
}

// Unwrap lets http.ResponseController flush.
func (c *countedAnswer) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (c *countedAnswer) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (c *countedAnswer) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes += n
	return n, err
}
