package v2http

import (
	"net/http"
	"strconv"
	"time"

	"github.com/kvorum/kvorum/server/state/v2keys"
)

// setJSON says that the answer is JSON.
func setJSON(header http.Header) { header["Content-Type"] = []string{"application/json"} }

// appendText appends a string as encoding/json does, with <, > and & escaped.
func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return append(b, marshal(string(s))...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendAnswer appends an answer or an event and a newline.
func appendAnswer(b []byte, a *v2keys.Answer, now time.Time) []byte {
	b = append(b, `{"action":"`...)
	b = append(b, a.Action.String()...)
	b = append(b, `","node":`...)
	b = appendNode(b, a.Node, !a.Action.Removes(), now)
	if a.Prev != nil {
		b = append(b, `,"prevNode":`...)
		b = appendNode(b, a.Prev, true, now)
	}
	return append(b, "}\n"...)
}

// appendNode appends a node and what it holds. withValue is false for the node
// that a removal leaves.
func appendNode(b []byte, n *v2keys.Node, withValue bool, now time.Time) []byte {
	b = append(b, '{')
	if n.Path != v2keys.Root {
		b = append(b, `"key":`...)
		b = append(appendText(b, n.Path), ',')
	}
	switch {
	case n.Dir:
		b = append(b, `"dir":true,`...)
	case withValue:
		b = append(b, `"value":`...)
		b = append(appendText(b, n.Value), ',')
	}
	if n.Expiration != 0 {
		b = appendExpiration(b, n.Expiration, now)
	}
	if len(n.Nodes) > 0 {
		b = append(b, `"nodes":[`...)
		for _, child := range n.Nodes {
			b = append(appendNode(b, child, true, now), ',')
		}
		b = append(b[:len(b)-1], "],"...)
	}
	if n.Modified != 0 {
		b = append(b, `"modifiedIndex":`...)
		b = strconv.AppendInt(b, int64(n.Modified), 10)
		b = append(b, `,"createdIndex":`...)
		b = append(strconv.AppendInt(b, int64(n.Created), 10), ',')
	}
	b[len(b)-1] = '}'
	return b
}

// appendExpiration appends when a node ends and in how many seconds, rounded
// up. A node whose time is up and that is still there has none.
func appendExpiration(b []byte, at int64, now time.Time) []byte {
	b = append(b, `"expiration":"`...)
	b = time.Unix(0, at).UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `",`...)
	if left := time.Duration(at - now.UnixNano()); left > 0 {
		b = append(b, `"ttl":`...)
		b = strconv.AppendInt(b, int64((left+time.Second-1)/time.Second), 10)
		b = append(b, ',')
	}
	return b
}
