package v2http

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const plainPut = "PUT /v2/keys/a/b?prevExist=true HTTP/1.1\r\nHost: localhost:2379\r\nUser-Agent: curl/8\r\nAccept: */*\r\nContent-Length: 7\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\nvalue=x"

// notPlain are requests that servers have understood differently, or that mean
// more than they say: all are net/http's.
var notPlain = []string{
	"GET /v2/keys/a HTTP/1.0\r\nHost: x\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\nHost: x\n\n\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost : x\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nAccept: a\r\n b: c\r\n\r\n",
	"GET  /v2/keys/a HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/keys/a  HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET http://x/v2/keys/a HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1 \r\nHost: x\r\n\r\n",
	"GET /v2/keysa HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/keys/a%2fb HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/keys//a HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/keys/../a HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/keys/a#b HTTP/1.1\r\nHost: x\r\n\r\n",
	"get /v2/keys/a HTTP/1.1\r\nHost: x\r\n\r\n",
	"HEAD /v2/keys/a HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
	"DELETE /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nAuthorization: Basic cm9vdDpyb290\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nX-Other: 1\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nAccept: \x01\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nAccept: a\nb\r\n\r\n",
	"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: +7\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7,7\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 0x7\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length:\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 65537\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded; charset=utf-8\r\nContent-Length: 7\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 7\r\n\r\nvalue=x",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\n",
	"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nvalue=x",
	"GET /v2/keys/" + strings.Repeat("a", plainHeadBytesMax) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"\r\nGET /v2/keys/a HTTP/1.1\r\nHost: x\r\n\r\n",
}

// If this fails, a request that a proxy understands in another way is taken for
// two, or one, that the proxy has not let through.
func TestNotPlain(t *testing.T) {
	for _, in := range notPlain {
		if p, v := readPlain([]byte(in)); v != other {
			t.Errorf("%.300q: verdict %d, %+v", in, v, p)
		}
	}
}

// If this fails, a request that comes in pieces is lost or cut.
func TestPlainInPieces(t *testing.T) {
	for n := range len(plainPut) {
		if _, v := readPlain([]byte(plainPut[:n])); v != part {
			t.Fatalf("%q: verdict %d", plainPut[:n], v)
		}
	}
	p, v := readPlain([]byte(plainPut + "GET"))
	if v != whole || p.verb != "PUT" || p.path != "/a/b" || string(p.query) != "prevExist=true" || string(p.form) != "value=x" || p.bytes != len(plainPut) {
		t.Errorf("verdict %d, %+v", v, p)
	}
}

// FuzzPlain: what is taken for a plain request is to net/http a request with the
// same meaning that ends at the same byte.
func FuzzPlain(f *testing.F) {
	f.Add([]byte(plainPut + plainPut))
	f.Add([]byte("GET /v2/keys/a?recursive=true&sorted=true HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Keep-Alive\r\n\r\n"))
	f.Add([]byte("GET /v2/keys HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("POST /v2/keys/q HTTP/1.1\r\nhost:x\r\ncontent-length:20\r\ncontent-type:application/x-www-form-urlencoded\r\n\r\nvalue=a%20b+c&ttl=1&&"))
	f.Add([]byte("PUT /v2/keys/d?dir=true&dir=false HTTP/1.1\r\nHost: x\r\nContent-Length: 000\r\n\r\n"))
	for _, in := range notPlain {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, v := readPlain(in)
		if v != whole {
			return
		}
		fields, ok := appendFields(nil, p.form)
		if ok {
			fields, ok = appendFields(fields, p.query)
		}
		if !ok {
			return
		}
		reader := bufio.NewReader(bytes.NewReader(in))
		r, err := http.ReadRequest(reader)
		if err != nil {
			t.Fatalf("%q is refused by net/http: %v", in, err)
		}
		if r.Method != p.verb || cleanPath(r.URL.Path) != r.URL.Path || pathOf(r.URL.Path) != p.path || r.Close || r.ProtoMinor != 1 || r.Host == "" {
			t.Fatalf("%q is %s %s, here %s %s", in, r.Method, r.URL.Path, p.verb, p.path)
		}
		values, err := readForm(r)
		if err != nil {
			t.Fatalf("%q has a bad form: %v", in, err)
		}
		if r.Method != http.MethodGet || r.URL.RawQuery != "" { // parse looks at no form otherwise
			ours := form{fields: fields}
			for name, all := range values {
				if got, given := ours.find(name); !given || got != all[0] {
					t.Fatalf("%q has the field %q as %q, here %q", in, name, all[0], got)
				}
			}
			if slices.ContainsFunc(fields, func(f field) bool { return !values.Has(f.name) }) {
				t.Fatalf("%q has the fields %q, here %q", in, values, fields)
			}
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatal(err)
		}
		left, _ := io.ReadAll(reader)
		if len(in)-len(left) != p.bytes {
			t.Fatalf("%q ends at %d, here at %d", in, len(in)-len(left), p.bytes)
		}
	})
}
