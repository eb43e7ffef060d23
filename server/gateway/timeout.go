package gateway

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// timeoutHeader is gRPC's header for how long the client is going to wait, which HTTP clients may set too.
const timeoutHeader = "Grpc-Timeout"

// withTimeout is the context of a request that ends when its client no longer waits. The error is a status.
func withTimeout(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.Header.Get(timeoutHeader)
	if text == "" {
		return r.Context(), func() {}, nil
	}
	timeout, ok := parseTimeout(text)
	if !ok {
		return nil, nil, status.Errorf(codes.InvalidArgument, "invalid grpc-timeout: %s", text)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

// parseTimeout reads gRPC's form: a number and the letter of its unit.
func parseTimeout(text string) (time.Duration, bool) {
	unit := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[text[len(text)-1]]
	n, err := strconv.ParseInt(text[:len(text)-1], 10, 64)
	if unit == 0 || err != nil {
		return 0, false
	}
	if limit := int64(1<<63-1) / int64(unit); n > limit {
		n = limit // for ever
	}
	return time.Duration(n) * unit, true
}
