package v2http

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzRequest: if it fails, a v2 request ends the process.
func FuzzRequest(f *testing.F) {
	f.Add("PUT", "/a/b", "ttl=5&prevExist=true", "value=x")
	f.Add("GET", "/%2f/../", "wait=true&waitIndex=-1&%zz", "")
	f.Add("POST", "/", "refresh=true", "refresh=1;%")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		r := httptest.NewRequest(http.MethodPut, keysPath+"/", strings.NewReader(body))
		r.Method, r.URL = method, &url.URL{Path: keysPath + path, RawQuery: query}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if q, p := parse(r); p == nil && !strings.HasPrefix(q.path, "/") {
			t.Errorf("%q is the path %q", path, q.path)
		}
	})
}

// FuzzBody: if it fails, the body of a request about users ends the process.
func FuzzBody(f *testing.F) {
	f.Add(`{"user":"a","password":"b","roles":["c"]}`)
	f.Add(`[[[[`)
	f.Fuzz(func(_ *testing.T, body string) {
		var to map[string]any
		_ = readBody(httptest.NewRequest(http.MethodPut, "/", strings.NewReader(body)), &to) // an error is an answer
		_, _ = readPeerURLs(httptest.NewRequest(http.MethodPut, "/", strings.NewReader(body)))
	})
}
