package compat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

type (
	leaseGranted = pb.LeaseGrantResponse
	memberAdded  = pb.MemberAddResponse
)

// play sends one step to the server and returns its answer as text, after normalisation. Of a watch there is no answer
// here: it comes with the stream's tape.
func (p *player) play(s step, revision int64) string {
	ctx, cancel := context.WithTimeout(p.outgoing(s), stepMax)
	defer cancel()
	request := s.adapt(&p.ids, revision)
	method := methodOf(s.method)
	if method == nil || (!method.IsStreamingClient() && !method.IsStreamingServer()) {
		var answer []byte
		err := p.conn.Invoke(ctx, s.method, &request, &answer)
		return p.text(s.method, request, [][]byte{answer}, err)
	}
	answers, err := p.stream(ctx, s.method, request)
	return p.text(s.method, request, answers, err)
}

// outgoing is a context with the step's token.
func (p *player) outgoing(s step) context.Context {
	switch {
	case strings.HasPrefix(s.as, "="):
		return metadata.AppendToOutgoingContext(p.ctx, "token", s.as[1:])
	case s.as != "" && p.tokens[s.as] != "":
		return metadata.AppendToOutgoingContext(p.ctx, "token", p.tokens[s.as])
	}
	return p.ctx
}

// stream sends one request and reads what comes until the end.
func (p *player) stream(ctx context.Context, path string, request []byte) ([][]byte, error) {
	stream, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&request); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var answers [][]byte
	for {
		var one []byte
		err := stream.RecvMsg(&one)
		if errors.Is(err, io.EOF) {
			return answers, nil
		}
		if err != nil {
			return answers, err
		}
		answers = append(answers, one)
	}
}

// text is what is compared.
func (p *player) text(path string, request []byte, answers [][]byte, err error) string {
	var b strings.Builder
	for _, data := range answers {
		if err != nil && len(data) == 0 {
			continue
		}
		method := methodOf(path)
		if method == nil {
			fmt.Fprintf(&b, "%x\n", data)
			continue
		}
		answer := newMessage(method.Output())
		if err := proto.Unmarshal(data, answer); err != nil {
			fmt.Fprintf(&b, "cannot be read: %v: %x\n", err, data)
			continue
		}
		p.learn(inputOf(path), request, answer)
		normalise(answer, &p.ids)
		text := "message\n" + format(answer)
		if _, snapshot := answer.(*pb.SnapshotResponse); snapshot && b.String() == text {
			continue // how many chunks there are depends on the size
		}
		b.WriteString(text)
	}
	if err != nil {
		s := status.Convert(err)
		fmt.Fprintf(&b, "%s %q %v\n", s.Code(), normalText(s.Message()), s.Details())
	}
	return b.String()
}

// format is a message as text, one field per line.
func format(m proto.Message) string {
	return prototext.MarshalOptions{Multiline: true, EmitUnknown: true}.Format(m)
}

// learn keeps what later steps need: tokens, ids, the revision.
func (p *player) learn(input proto.Message, request []byte, answer proto.Message) {
	if proto.Unmarshal(request, input) == nil {
		p.ids.learn(input, answer)
		if login, ok := input.(*pb.AuthenticateRequest); ok {
			p.tokens[login.Name] = answer.(*pb.AuthenticateResponse).Token
		}
	}
	if a, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		p.revision = max(p.revision, a.GetHeader().GetRevision())
	}
}

// normalise takes out of an answer what may differ between two servers that behave alike:
//
//	raft terms and indexes        each cluster has its own history of elections and internal entries
//	sizes, Hash, Snapshot blobs   the two lay out their files differently
//	a lease's remaining time      seconds pass between two requests
//	keys of a lease, alarms       in no order
//	alarms in Status              in the protobuf library's text form, whose spaces are random
//	tokens                        random
//	ids that a server has chosen  become stand-ins (idTable)
//	the version in Status         is that of the API implemented, 3.7.x
func normalise(answer proto.Message, ids *idTable) {
	switch a := answer.(type) {
	case *pb.StatusResponse:
		a.DbSize, a.DbSizeInUse, a.RaftIndex, a.RaftTerm, a.RaftAppliedIndex = 0, 0, 0, 0, 0
		if strings.HasPrefix(a.Version, "3.7.") {
			a.Version = "3.7"
		}
		for i, text := range a.Errors {
			a.Errors[i] = strings.Join(strings.Fields(text), " ")
		}
		slices.Sort(a.Errors)
	case *pb.AlarmResponse:
		slices.SortFunc(a.Alarms, func(x, y *pb.AlarmMember) int {
			return cmp.Or(cmp.Compare(x.MemberID, y.MemberID), cmp.Compare(x.Alarm, y.Alarm))
		})
	case *pb.HashResponse:
		a.Hash = 0
	case *pb.SnapshotResponse:
		a.Blob, a.RemainingBytes = nil, 0
	case *pb.LeaseTimeToLiveResponse:
		if a.TTL > 0 {
			a.TTL = 1
		}
		slices.SortFunc(a.Keys, func(x, y []byte) int { return strings.Compare(string(x), string(y)) })
	case *pb.AuthenticateResponse:
		if a.Token != "" {
			a.Token = "token"
		}
	}
	walkIntegers(answer.ProtoReflect(), func(field protoreflect.FieldDescriptor, v int64) int64 {
		if field.Name() == "raft_term" {
			return 0
		}
		if standIn, ok := ids.standIn[v]; ok && idFields[field.Name()] {
			return standIn
		}
		return v
	})
}

// normalText evens out the space that the protobuf library puts at random into its error texts, to keep programs from
// comparing them.
//
// And of a request that cannot be read, the gRPC library's words before the protobuf library's: they change from one
// release to the next, and belong to neither server.
func normalText(text string) string {
	text = strings.ReplaceAll(text, "\u00a0", " ")
	return strings.Replace(text, "grpc: error unmarshalling request:", "grpc: failed to unmarshal the received message:", 1)
}

// poll calls done until it says true or the time is up.
func poll(limit time.Duration, done func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return done()
		}
	}
}
