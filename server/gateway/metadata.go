package gateway

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// withMetadata is the context of a request, with the metadata and the deadline
// that its headers stand for; call stop at its end. The mark that it came
// through here turns off users by certificate.
func withMetadata(r *http.Request) (ctx context.Context, stop context.CancelFunc, err error) {
	md := metadata.MD{}
	for name, values := range r.Header {
		key, ok := strings.CutPrefix(name, metadataPrefix)
		if !ok || key == "" {
			continue
		}
		if strings.HasSuffix(key, "-Bin") {
			if values, err = decodeBinary(name, values); err != nil {
				return nil, nil, err
			}
		}
		md.Append(key, values...)
	}
	md.Append("authorization", r.Header.Values("Authorization")...)
	md.Set("grpcgateway-accept", cmp.Or(r.Header.Get("Accept"), "*/*"))
	ctx, stop = metadata.NewOutgoingContext(r.Context(), md), func() {}
	if text := r.Header.Get("Grpc-Timeout"); text != "" {
		timeout, ok := parseTimeout(text)
		if !ok {
			return nil, nil, status.Error(codes.InvalidArgument, "invalid grpc-timeout: "+text)
		}
		ctx, stop = context.WithTimeout(ctx, timeout)
	}
	return ctx, stop, nil
}

// decodeBinary undoes the base64 in which a header carries binary metadata.
func decodeBinary(name string, values []string) ([]string, error) {
	var decoded []string
	for _, v := range values {
		encoding := base64.RawStdEncoding
		if len(v)%4 == 0 {
			encoding = base64.StdEncoding
		}
		b, err := encoding.DecodeString(v)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("invalid binary header %s: %v", name, err))
		}
		decoded = append(decoded, string(b))
	}
	return decoded, nil
}

// parseTimeout reads a Grpc-Timeout: a number and one letter for its unit.
func parseTimeout(text string) (time.Duration, bool) {
	if text == "" {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[text[len(text)-1]]
	n, err := strconv.ParseInt(text[:len(text)-1], 10, 64)
	return time.Duration(min(n, math.MaxInt64/max(1, int64(unit)))) * unit, ok && err == nil
}

// writeMetadata puts what the server sent with its answer into headers.
func writeMetadata(w http.ResponseWriter, md metadata.MD) {
	for key, values := range md {
		for _, v := range values {
			w.Header().Add(metadataPrefix+key, v)
		}
	}
}
