package gateway

import (
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/must"
)

// statusClosedRequest says that the client went away; nobody sees it.
const statusClosedRequest = 499

// writeError answers {"code":…,"message":…} with the HTTP status of the code. It
// returns the error.
func writeError(w http.ResponseWriter, err error) error {
	st := status.Convert(err)
	if st.Code() == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", st.Message())
	}
	w.WriteHeader(httpStatus(st.Code()))
	_, _ = w.Write(encodeStatus("", st))
	return err
}

// writeStreamError is writeError for a stream that has given no message yet.
func writeStreamError(w http.ResponseWriter, err error) error {
	st := status.Convert(err)
	w.WriteHeader(httpStatus(st.Code()))
	_, _ = w.Write(encodeStatus("error", st))
	return err
}

func encodeStatus(key string, st *status.Status) []byte {
	body, err := encode(key, st.Proto())
	must.NoError(err, "encode a status")
	return body
}

func httpStatus(c codes.Code) int {
	switch c {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return statusClosedRequest
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
