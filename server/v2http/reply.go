package v2http

import (
	"net/http"
	"strconv"
)

// reply is the answer to a request on keys, before it is on a connection.
type reply struct {
	status              int
	index               uint64
	hasRaft             bool // a problem has no position in the log
	raftIndex, raftTerm uint64
	body                []byte
}

// write answers by net/http.
func (a *reply) write(w http.ResponseWriter) {
	a.header(w.Header())
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the reader has gone: nothing to tell it
}

// header sets the headers of the reply, but for that of the cluster.
func (a *reply) header(to http.Header) {
	setJSON(to)
	to["X-Etcd-Index"] = []string{strconv.FormatUint(a.index, 10)}
	if a.hasRaft {
		to["X-Raft-Index"] = []string{strconv.FormatUint(a.raftIndex, 10)}
		to["X-Raft-Term"] = []string{strconv.FormatUint(a.raftTerm, 10)}
	}
}

// appendHead appends all but the body, as HTTP/1.1 has it. common are the headers of every
// answer, with the end of each line; date is a line of its own.
func (a *reply) appendHead(b []byte, common string, date []byte) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(append(b, ' '), http.StatusText(a.status)...)
	b = append(append(b, "\r\n"...), common...)
	b = append(b, "Content-Type: application/json\r\nX-Etcd-Index: "...)
	b = strconv.AppendUint(b, a.index, 10)
	if a.hasRaft {
		b = append(b, "\r\nX-Raft-Index: "...)
		b = strconv.AppendUint(b, a.raftIndex, 10)
		b = append(b, "\r\nX-Raft-Term: "...)
		b = strconv.AppendUint(b, a.raftTerm, 10)
	}
	b = append(append(b, "\r\n"...), date...)
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(a.body)), 10)
	return append(b, "\r\n\r\n"...)
}
