package compat

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "go.etcd.io/etcd/api/v3/authpb"
	_ "go.etcd.io/etcd/api/v3/etcdserverpb"
	_ "go.etcd.io/etcd/api/v3/membershippb"
	_ "go.etcd.io/etcd/api/v3/mvccpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// ownFields is the first field number that Kvorum may use for what it adds.
const ownFields = 10000

// wirePackages are the proto packages that both sides have.
var wirePackages = []protoreflect.FullName{
	"authpb", "etcdserverpb", "membershippb", "mvccpb", "v3electionpb", "v3lockpb",
}

// A difference here is a client whose request or answer is read as something else.
func TestDescriptorsEqualEtcds(t *testing.T) {
	ours, theirs := shape{}, shape{}
	files := compileOurs(t)
	for _, file := range files {
		ours.addFile(file)
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if slices.Contains(wirePackages, file.Package()) {
			theirs.addFile(file)
		}
		return true
	})
	if len(theirs) < 500 {
		t.Fatalf("etcd's descriptors have only %d elements: they are not linked in", len(theirs))
	}
	for name, want := range theirs {
		if got, ok := ours[name]; !ok {
			t.Errorf("missing: %s (%s)", name, want)
		} else if got != want {
			t.Errorf("%s:\n ours  %s\n etcd's %s", name, got, want)
		}
	}
	added := ownMessages(files)
	for name, got := range ours {
		if _, ok := theirs[name]; !ok && !added.holds(name) {
			t.Errorf("etcd does not have: %s (%s)", name, got)
		}
	}
}

// The comparison must notice each kind of difference, or its silence means nothing.
func TestDescriptorComparisonNotices(t *testing.T) {
	const base = `syntax = "proto3"; package p; enum E { A = 0; B = 1; }
		message M { int64 a = 1; oneof u { string b = 2; bytes c = 3; } repeated E e = 4; }
		service S { rpc Call(M) returns (stream M); }`
	want := shapeOf(t, base)
	for name, edit := range map[string][2]string{
		"number":    {"a = 1", "a = 9"},
		"type":      {"int64 a", "uint64 a"},
		"name":      {"int64 a", "int64 z"},
		"repeated":  {"repeated E", "E"},
		"packed":    {"e = 4", "e = 4 [packed=false]"},
		"oneof":     {"oneof u { string b = 2; bytes c = 3; }", "string b = 2; bytes c = 3;"},
		"enum":      {"B = 1", "B = 2"},
		"streaming": {"returns (stream M)", "returns (M)"},
		"method":    {"rpc Call", "rpc Cull"},
	} {
		t.Run(name, func(t *testing.T) {
			edited := strings.Replace(base, edit[0], edit[1], 1)
			if got := shapeOf(t, edited); fmt.Sprint(got) == fmt.Sprint(want) {
				t.Errorf("%q in place of %q went unnoticed", edit[1], edit[0])
			}
		})
	}
}

func shapeOf(t *testing.T, source string) shape {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"p.proto": source}),
	}}
	files, err := compiler.Compile(context.Background(), "p.proto")
	if err != nil {
		t.Fatal(err)
	}
	s := shape{}
	s.addFile(files[0])
	return s
}

// compileOurs reads our .proto files into descriptors that no registry knows.
func compileOurs(t *testing.T) []protoreflect.FileDescriptor {
	t.Helper()
	root := filepath.Join("..", "..", "proto")
	paths, err := filepath.Glob(filepath.Join(root, "*", "*.proto"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no .proto files under %s: %v", root, err)
	}
	var names []string
	for _, path := range paths {
		names = append(names, filepath.ToSlash(strings.TrimPrefix(path, root+string(os.PathSeparator))))
	}
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		t.Fatalf("compile %v: %v", names, err)
	}
	var all []protoreflect.FileDescriptor
	for _, file := range files {
		all = append(all, file)
	}
	return all
}

// shape describes every element of the wire by its full name.
type shape map[protoreflect.FullName]string

func (s shape) addFile(file protoreflect.FileDescriptor) {
	s.addMessages(file.Messages())
	s.addEnums(file.Enums())
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		s[service.FullName()] = "service"
		for j := range service.Methods().Len() {
			m := service.Methods().Get(j)
			s[m.FullName()] = fmt.Sprintf("rpc (%s stream=%t) returns (%s stream=%t)",
				m.Input().FullName(), m.IsStreamingClient(), m.Output().FullName(), m.IsStreamingServer())
		}
	}
}

func (s shape) addMessages(messages protoreflect.MessageDescriptors) {
	for i := range messages.Len() {
		m := messages.Get(i)
		s[m.FullName()] = "message"
		s.addMessages(m.Messages())
		s.addEnums(m.Enums())
		for j := range m.Fields().Len() {
			if f := m.Fields().Get(j); f.Number() < ownFields {
				s[f.FullName()] = describeField(f)
			}
		}
	}
}

func (s shape) addEnums(enums protoreflect.EnumDescriptors) {
	for i := range enums.Len() {
		e := enums.Get(i)
		s[e.FullName()] = "enum"
		for j := range e.Values().Len() {
			v := e.Values().Get(j)
			s[e.FullName()+"."+protoreflect.FullName(v.Name())] = fmt.Sprintf("value %d", v.Number())
		}
	}
}

func describeField(f protoreflect.FieldDescriptor) string {
	text := fmt.Sprintf("field %d %s %s json=%s packed=%t presence=%t map=%t",
		f.Number(), f.Cardinality(), f.Kind(), f.JSONName(), f.IsPacked(), f.HasPresence(), f.IsMap())
	if o := f.ContainingOneof(); o != nil {
		text += " oneof=" + string(o.Name())
	}
	if m := f.Message(); m != nil {
		text += " of " + string(m.FullName())
	}
	if e := f.Enum(); e != nil {
		text += " of " + string(e.FullName())
	}
	return text
}

// messageSet is a set of messages by full name.
type messageSet map[protoreflect.FullName]bool

// holds tells whether an element is one of the messages or inside one.
func (s messageSet) holds(name protoreflect.FullName) bool {
	for ; name != ""; name = name.Parent() {
		if s[name] {
			return true
		}
	}
	return false
}

// ownMessages are the messages that only Kvorum's own fields lead to.
func ownMessages(files []protoreflect.FileDescriptor) messageSet {
	own := messageSet{}
	var add func(m protoreflect.MessageDescriptor, all bool)
	add = func(m protoreflect.MessageDescriptor, all bool) {
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if f.Message() != nil && (all || f.Number() >= ownFields) && !own[f.Message().FullName()] {
				own[f.Message().FullName()] = true
				add(f.Message(), true)
			}
		}
	}
	for _, file := range files {
		for i := range file.Messages().Len() {
			add(file.Messages().Get(i), false)
		}
	}
	return own
}
