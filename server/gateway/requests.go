package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var errTooLarge = errors.New("the JSON of a message is too large")

// requests reads the messages in a body, one JSON object after the other.
type requests struct {
	bounded *bounded
	json    *json.Decoder
	limits  Limits
	strict  bool // what is no message fails the stream
}

func newRequests(body io.Reader, limits Limits) *requests {
	b := &bounded{from: body}
	return &requests{bounded: b, json: json.NewDecoder(b), limits: limits}
}

// next reads one message into m. The error is io.EOF after the last one, else a
// gRPC status.
func (q *requests) next(m proto.Message) error {
	q.bounded.left = q.limits.JSONBytesMax
	var raw json.RawMessage
	err := q.json.Decode(&raw)
	if err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m)
	}
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case errors.Is(err, errTooLarge):
		// The size is not known: nobody reads on to learn it.
		return status.Error(codes.ResourceExhausted, fmt.Sprintf("grpc: received message larger than max (more than %d bytes of JSON vs. %d)",
			q.limits.JSONBytesMax, q.limits.MessageBytesMax))
	case errors.Is(err, errHungUp):
		return status.Error(codes.Canceled, err.Error())
	}
	// protojson writes one kind of space or another, by build.
	return status.Error(codes.InvalidArgument, strings.ReplaceAll(err.Error(), "\u00a0", " "))
}

// drain reads what follows the last message: net/http notices that a client has
// gone only after the end of its body.
func (q *requests) drain() {
	q.bounded.left = q.limits.JSONBytesMax
	_, _ = io.Copy(io.Discard, q.bounded)
}

// bounded fails when more than left bytes are read.
type bounded struct {
	from io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errTooLarge
	}
	n, err := b.from.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
