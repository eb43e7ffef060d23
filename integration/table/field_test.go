package table

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// ownFields is the first field number that Kvorum may use for what it adds.
const ownFields = 10000

func fieldRows(w *world) (rows []row) {
	known := map[protoreflect.FullName]bool{}
	for _, f := range facts(w.T, "etcd/fields.txt", 4) {
		name := protoreflect.FullName(f[0])
		r := row{group: string(name.Parent()), name: string(name.Name()), state: met}
		if f[1] == "message" {
			r.group, r.name = f[0], "no fields"
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			// An enum value is a sibling of its enum in protobuf's eyes.
			d, err = enumValue(name)
		}
		switch {
		case err != nil:
			r.state, r.why = absent, "not there"
		default:
			if got := describe(d); got != strings.Join(f[1:3], " ") {
				r.state, r.why = differs, fmt.Sprintf("it is %q, not %q", got, strings.Join(f[1:3], " "))
			}
		}
		known[name] = true
		rows = append(rows, r)
	}
	w.unknownFields(known)
	return rows
}

// unknownFields: a field with one of etcd's numbers that etcd has not would one
// day be something else.
func (w *world) unknownFields(known map[protoreflect.FullName]bool) {
	w.Helper()
	visit := func(m protoreflect.MessageDescriptor) {
		for i := range m.Fields().Len() {
			if f := m.Fields().Get(i); f.Number() < ownFields && !known[f.FullName()] {
				w.Errorf("etcd/fields.txt does not have %s", f.FullName())
			}
		}
	}
	for name := range known {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name.Parent())
		if m, ok := d.(protoreflect.MessageDescriptor); err == nil && ok {
			visit(m)
		}
	}
}

func enumValue(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name.Parent())
	if e, ok := d.(protoreflect.EnumDescriptor); ok {
		if v := e.Values().ByName(name.Name()); v != nil {
			return v, nil
		}
	}
	if err == nil {
		err = protoregistry.NotFound
	}
	return nil, err
}

// describe is in the words of fields.txt.
func describe(d protoreflect.Descriptor) string {
	switch x := d.(type) {
	case protoreflect.MessageDescriptor:
		if x.Fields().Len() > 0 {
			return fmt.Sprintf("message with %d fields", x.Fields().Len())
		}
		return "message "
	case protoreflect.EnumValueDescriptor:
		return fmt.Sprintf("%d value ", x.Number())
	case protoreflect.FieldDescriptor:
		kind := x.Kind().String()
		switch {
		case x.Message() != nil:
			kind = string(x.Message().FullName())
		case x.Enum() != nil:
			kind = string(x.Enum().FullName())
		}
		if x.IsList() {
			kind = "repeated " + kind
		}
		oneof := ""
		if o := x.ContainingOneof(); o != nil {
			oneof = string(o.Name())
		}
		return fmt.Sprintf("%d %s %s", x.Number(), kind, oneof)
	}
	return fmt.Sprintf("%T", d)
}
