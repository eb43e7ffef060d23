package compat

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// watchMethod is the one method that a step sends to a stream which stays open.
const watchMethod = "/etcdserverpb.Watch/Watch"

// step is one request of a differential test.
type step struct {
	method  string
	request []byte // encoded; may be malformed
	as      string // whose token goes along; "" = none; "=text" = that very token
	at      int64  // the store's revision when the request was drawn
	stream  int    // of a watch: on which stream
}

// String is the step as one line to read.
func (s step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "@%d %s", s.at, s.method)
	if s.as != "" {
		fmt.Fprintf(&b, " as %q", s.as)
	}
	if s.method == watchMethod {
		fmt.Fprintf(&b, " stream %d", s.stream)
	}
	message := inputOf(s.method)
	if err := proto.Unmarshal(s.request, message); err != nil {
		fmt.Fprintf(&b, " bytes %x", s.request)
	} else {
		text := prototext.MarshalOptions{EmitUnknown: true}.Format(message)
		if len(text) > 5000 {
			text = text[:5000] + "…"
		}
		fmt.Fprintf(&b, " {%s}", text)
	}
	return b.String()
}

// encode makes the request's bytes; a message that does not encode is a mistake of the generator.
func encode(m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

// methodOf finds a method's description by its path; nil when there is no such method.
func methodOf(path string) protoreflect.MethodDescriptor {
	service, method, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil
	}
	return found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
}

// inputOf is a new request of a method; of one that does not exist, any message.
func inputOf(path string) proto.Message {
	if m := methodOf(path); m != nil {
		return newMessage(m.Input())
	}
	return newMessage(methodOf("/etcdserverpb.KV/Range").Input())
}

func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err) // the descriptor came from the same registry
	}
	return t.New().Interface()
}

// revisionFields are those that name a revision of the store in requests.
var revisionFields = map[protoreflect.Name]bool{
	"revision": true, "start_revision": true, "mod_revision": true, "create_revision": true,
	"min_mod_revision": true, "max_mod_revision": true, "min_create_revision": true, "max_create_revision": true,
}

// adapt makes the bytes that one server gets: ids that it has chosen instead of their stand-ins, and revisions as far
// from the store's current one as they were when the step was drawn, so that a shortened list of steps still means
// what it meant. Malformed requests go as they are.
func (s step) adapt(ids *idTable, revision int64) []byte {
	message := inputOf(s.method)
	if proto.Unmarshal(s.request, message) != nil {
		return s.request
	}
	changed := false
	walkIntegers(message.ProtoReflect(), func(field protoreflect.FieldDescriptor, v int64) int64 {
		want := v
		if actual, ok := ids.actual[v]; ok && idFields[field.Name()] {
			want = actual
		}
		if shift := revision - s.at; shift != 0 && v > 0 && v < 1<<40 && revisionFields[field.Name()] {
			want = max(1, v+shift)
		}
		changed = changed || want != v
		return want
	})
	if !changed {
		return s.request
	}
	return encode(message)
}

// walkIntegers replaces each 64-bit integer that is set, at any depth, by what change makes of it.
func walkIntegers(m protoreflect.Message, change func(protoreflect.FieldDescriptor, int64) int64) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			for i := range v.List().Len() {
				walkIntegers(v.List().Get(i).Message(), change)
			}
		case field.IsList():
		case field.Message() != nil:
			walkIntegers(v.Message(), change)
		case field.Kind() == protoreflect.Int64Kind:
			if now := change(field, v.Int()); now != v.Int() {
				m.Set(field, protoreflect.ValueOfInt64(now))
			}
		case field.Kind() == protoreflect.Uint64Kind:
			if now := change(field, int64(v.Uint())); uint64(now) != v.Uint() {
				m.Set(field, protoreflect.ValueOfUint64(uint64(now)))
			}
		}
		return true
	})
}

// idFields are those that hold the id of a lease or a member.
var idFields = map[protoreflect.Name]bool{"ID": true, "lease": true, "memberID": true, "targetID": true, "leader": true}

// Stand-ins for ids that a server chooses: the n-th lease, the n-th member.
const (
	chosenLease  = 0x6C0000000000
	chosenMember = 0x6D0000000000
)

// idTable knows which id of a server stands behind which stand-in.
type idTable struct {
	actual, standIn map[int64]int64
	leases, members int64
}

func (t *idTable) choose(actual, standIn int64) {
	if t.actual == nil {
		t.actual, t.standIn = map[int64]int64{}, map[int64]int64{}
	}
	t.actual[standIn], t.standIn[actual] = actual, standIn
}

// learn notices the ids that an answer tells for the first time.
func (t *idTable) learn(request, answer proto.Message) {
	switch a := answer.(type) {
	case *leaseGranted:
		if r := request.(*leaseGrant); r.ID == 0 && a.ID != 0 {
			t.choose(a.ID, chosenLease+t.leases)
			t.leases++
		}
	case *memberAdded:
		t.choose(int64(a.Member.GetID()), chosenMember+t.members)
		t.members++
	}
}
