package v2http

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/state/v2keys"
)

// The codes of problems that are not v2keys'.
const (
	codeUnauthorized  = 110
	codePrevValue     = 201
	codeTTL           = 202
	codeIndex         = 203
	codeField         = 209
	codeForm          = 210
	codeRefreshValue  = 211
	codeRefreshTTL    = 212
	codeRaft          = 300
	codeEventsCleared = 401
)

// messageOf is the one table of codes and texts, and the status of those that
// are not a bad request. Both are etcd's: clients compare them.
func messageOf(code int) (message string, status int) {
	switch code {
	case int(v2keys.CodeNotFound):
		return "Key not found", http.StatusNotFound
	case int(v2keys.CodeCompare):
		return "Compare failed", http.StatusPreconditionFailed
	case int(v2keys.CodeNotFile):
		return "Not a file", http.StatusForbidden
	case int(v2keys.CodeNotDirectory):
		return "Not a directory", http.StatusBadRequest
	case int(v2keys.CodeExists):
		return "Key already exists", http.StatusPreconditionFailed
	case int(v2keys.CodeRoot):
		return "Root is read only", http.StatusBadRequest
	case int(v2keys.CodeNotEmpty):
		return "Directory not empty", http.StatusForbidden
	case codeUnauthorized:
		return "The request requires user authentication", http.StatusUnauthorized
	case codePrevValue:
		return "PrevValue is Required in POST form", http.StatusBadRequest
	case codeTTL:
		return "The given TTL in POST form is not a number", http.StatusBadRequest
	case codeIndex:
		return "The given index in POST form is not a number", http.StatusBadRequest
	case codeField:
		return "Invalid field", http.StatusBadRequest
	case codeForm:
		return "Invalid POST form", http.StatusBadRequest
	case codeRefreshValue:
		return "Value provided on refresh", http.StatusBadRequest
	case codeRefreshTTL:
		return "A TTL must be provided on refresh", http.StatusBadRequest
	case codeEventsCleared:
		return "The event in requested index is outdated and cleared", http.StatusBadRequest
	}
	return "Raft Internal Error", http.StatusInternalServerError
}

// problem is an error as the API tells it.
type problem struct {
	code  int
	cause string
	index uint64
	busy  bool // the same request may be served later: 503
}

// ErrTooManyRequests is of a Member that cannot answer in time: come again later.
var ErrTooManyRequests = errors.New("etcdserver: too many requests")

// problemOf is the translation of errors; what is not known is the log's.
func problemOf(err error) problem {
	var refused *v2keys.Error
	switch {
	case errors.As(err, &refused):
		return problem{code: int(refused.Code), cause: refused.Cause, index: uint64(refused.Index)}
	case errors.Is(err, ErrTooManyRequests):
		return problem{code: codeRaft, cause: err.Error(), busy: true}
	case isDenied(err):
		return problem{code: codeUnauthorized, cause: "Insufficient credentials"}
	case errors.Is(err, context.DeadlineExceeded): // there was no leader to take it
		return problem{code: codeRaft, cause: "etcdserver: request timed out"}
	}
	return problem{code: codeRaft, cause: err.Error()}
}

// isDenied reports whether an error says that the caller may not do this.
func isDenied(err error) bool {
	for _, denied := range []error{
		state.ErrPermissionDenied, state.ErrUserEmpty, state.ErrUserNotFound, state.ErrAuthFailed, state.ErrNoPasswordUser,
	} {
		if errors.Is(err, denied) {
			return true
		}
	}
	return false
}

// write answers with the problem.
func (p problem) write(w http.ResponseWriter) {
	a := p.reply(make([]byte, 0, 128))
	a.write(w)
}

// reply is the answer that tells the problem; its body is appended to b.
func (p problem) reply(b []byte) reply {
	message, status := messageOf(p.code)
	if p.busy {
		status = http.StatusServiceUnavailable
	}
	b = append(b, `{"errorCode":`...)
	b = strconv.AppendInt(b, int64(p.code), 10)
	b = append(b, `,"message":`...)
	b = appendText(b, message)
	if p.cause != "" {
		b = append(b, `,"cause":`...)
		b = appendText(b, p.cause)
	}
	b = append(b, `,"index":`...)
	b = strconv.AppendUint(b, p.index, 10)
	return reply{status: status, index: p.index, body: append(b, "}\n"...)}
}
