package v2http

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
)

const (
	// What a plain request may have; one that has more is net/http's.
	plainHeadBytesMax = 8 << 10
	plainFormBytesMax = 64 << 10
	plainFieldsMax    = 32
	plainFormType     = "application/x-www-form-urlencoded"
)

// verdict is what the bytes that have come are.
type verdict int

const (
	other verdict = iota // not a plain request: net/http's from its first byte
	part                 // of a plain request, perhaps
	whole
)

// plain is a request on keys that every server must understand in the same way:
//
//	GET|PUT|POST|DELETE /v2/keys[/name]...[?form] HTTP/1.1 CRLF
//	( one of the names of plainHead.add: printable ASCII CRLF )...
//	CRLF
//	a form as long as Content-Length says, of PUT and POST alone
//
// What has anything else in it, escapes in the path and names that are not on
// the list included, is not plain. Invariant: net/http gives a plain request the
// same meaning; FuzzPlain looks for one where it does not.
type plain struct {
	verb, path string
	query      []byte
	form       []byte
	bytes      int // that it takes, from the first of the method
}

// readPlain looks at what a connection has sent. The request aliases in.
func readPlain(in []byte) (plain, verdict) {
	verb, v := verbOf(in)
	if v != whole {
		return plain{}, v
	}
	end := bytes.Index(in[:min(len(in), plainHeadBytesMax)], []byte("\r\n\r\n"))
	switch {
	case end < 0 && len(in) >= plainHeadBytesMax:
		return plain{}, other
	case end < 0:
		return plain{}, part
	}
	line, lines, _ := bytes.Cut(in[:end], []byte("\r\n"))
	p := plain{verb: verb}
	target, ok := bytes.CutSuffix(line[len(verb)+1:], []byte(" HTTP/1.1"))
	if !ok || !p.readTarget(target) {
		return plain{}, other
	}
	head, ok := readPlainHead(lines)
	if !ok || !head.fits(verb) {
		return plain{}, other
	}
	p.bytes = end + 4 + head.formBytes
	if len(in) < p.bytes {
		return plain{}, part
	}
	p.form = in[end+4 : p.bytes]
	return p, whole
}

// verbOf is the method of a request on keys.
func verbOf(in []byte) (verb string, v verdict) {
	for _, verb := range [...]string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		n := len(verb)
		switch {
		case len(in) <= n && strings.HasPrefix(verb+" ", string(in)):
			return "", part
		case len(in) <= n || string(in[:n]) != verb || in[n] != ' ':
			continue
		}
		rest := in[n+1:]
		switch {
		case len(rest) < len(keysPath) && strings.HasPrefix(keysPath, string(rest)):
			return "", part
		case bytes.HasPrefix(rest, []byte(keysPath)):
			return verb, whole
		}
	}
	return "", other
}

// readTarget splits path and query. A path that is not the shortest one is
// answered with a redirection, by net/http.
func (p *plain) readTarget(target []byte) bool {
	path, query, _ := bytes.Cut(target, []byte("?"))
	for _, c := range path {
		if !isUnreserved(c) && c != '/' && c != ':' {
			return false
		}
	}
	for _, c := range query {
		if !isUnreserved(c) && !strings.ContainsRune("/:&=%+,", rune(c)) {
			return false
		}
	}
	if len(path) > len(keysPath) && path[len(keysPath)] != '/' || bytes.Contains(path, []byte("//")) || bytes.Contains(path, []byte("/.")) {
		return false
	}
	p.path, p.query = pathOf(string(path)), query
	return true
}

// isUnreserved is RFC 3986's: what stands for itself everywhere in a URL.
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// plainHead is what the header of a plain request says.
type plainHead struct {
	host, length, formType bool // given
	formBytes              int
}

// readPlainHead reads the lines of a header, without the empty one at its end.
func readPlainHead(lines []byte) (h plainHead, ok bool) {
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || !h.add(name, bytes.Trim(value, " \t")) {
			return h, false
		}
	}
	return h, h.host
}

// add takes one line, if it knows what it means or that it means nothing here.
func (h *plainHead) add(name, value []byte) bool {
	for _, c := range value {
		if c < ' ' || c > '~' {
			return false
		}
	}
	var lower [len("accept-encoding")]byte
	if len(name) > len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	switch string(lower[:len(name)]) {
	case "host":
		return isFirst(&h.host) && isPlainHost(value)
	case "content-length":
		return isFirst(&h.length) && h.readLength(value)
	case "content-type":
		return isFirst(&h.formType) && string(value) == plainFormType
	case "connection":
		return strings.EqualFold(string(value), "keep-alive")
	case "user-agent", "accept", "accept-encoding", "accept-language":
		return true
	}
	return false
}

func isFirst(given *bool) bool {
	first := !*given
	*given = true
	return first
}

func isPlainHost(value []byte) bool {
	for _, c := range value {
		if !isUnreserved(c) && c != ':' && c != '[' && c != ']' {
			return false
		}
	}
	return len(value) > 0
}

func (h *plainHead) readLength(value []byte) bool {
	if len(value) == 0 || len(value) > len("65536") {
		return false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
		h.formBytes = 10*h.formBytes + int(c-'0')
	}
	return h.formBytes <= plainFormBytesMax
}

// fits tells whether the method goes with a body like this.
func (h *plainHead) fits(verb string) bool {
	if verb == http.MethodPut || verb == http.MethodPost {
		return h.formBytes == 0 || h.formType
	}
	return h.formBytes == 0
}

// appendFields reads a form. It fails for one that has too many fields, or for
// which net/http has an error.
func appendFields(fields []field, form []byte) (_ []field, ok bool) {
	for len(form) > 0 {
		var one []byte
		one, form, _ = bytes.Cut(form, []byte("&"))
		if len(one) == 0 {
			continue
		}
		if len(fields) == plainFieldsMax || bytes.IndexByte(one, ';') >= 0 {
			return fields, false
		}
		name, value, _ := bytes.Cut(one, []byte("="))
		f := field{name: fieldName(name)}
		var wrongName, wrongValue error
		if f.name == "" {
			f.name, wrongName = url.QueryUnescape(string(name))
		}
		f.value, wrongValue = url.QueryUnescape(string(value))
		if wrongName != nil || wrongValue != nil {
			return fields, false
		}
		fields = append(fields, f)
	}
	return fields, true
}

// fieldName is the name of the fields that nearly all requests have, without
// memory of its own.
func fieldName(name []byte) string {
	for _, known := range [...]string{"value", "ttl", "recursive", "sorted", "quorum", "dir", "prevExist", "prevValue", "prevIndex"} {
		if string(name) == known {
			return known
		}
	}
	return ""
}
