package api

import (
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func decode(data []byte, m proto.Message) error {
	return Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, m)
}

// If this fails, a request that a client library would not send is answered otherwise than by etcd, or is proposed in a
// form that no member can apply.
func TestOddRequestsAreDecodedAsTheProtobufLibraryDoes(t *testing.T) {
	put := &pb.PutRequest{}
	data := []byte{1<<3 | 2, 1, 'k', 1<<3 | 0, 5} // the key, and a number where the key should be
	if err := decode(data, put); err != nil || string(put.Key) != "k" || len(put.ProtoReflect().GetUnknown()) != 0 {
		t.Errorf("a field of another type: %v, %v", put, err)
	}
	user := &pb.AuthUserAddRequest{}
	data = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0xff, 0xfe})
	if err := decode(data, user); err == nil || !strings.Contains(err.Error(), "invalid UTF-8") {
		t.Errorf("a name that is not UTF-8: %v, %v", user, err)
	}
	const want = "cannot parse invalid wire-format data"
	if err := decode([]byte{1<<3 | 2, 9, 'k'}, put); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a request that breaks off: %v, want %s", err, want)
	}
}
