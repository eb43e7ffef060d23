package server

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// contentBytesMax bounds what a log line says of one request.
const contentBytesMax = 2048

// contentOf is a message as text for the log: of values only their size, of
// passwords and tokens nothing.
//
//	key:"foo" value_size:9
func contentOf(m proto.Message) string {
	var b strings.Builder
	writeFields(&b, m.ProtoReflect())
	if b.Len() > contentBytesMax {
		return strings.ToValidUTF8(b.String()[:contentBytesMax], "") + "…"
	}
	return b.String()
}

func writeFields(b *strings.Builder, m protoreflect.Message) {
	var fields []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields = append(fields, f)
		return true
	})
	slices.SortFunc(fields, func(x, y protoreflect.FieldDescriptor) int { return cmp.Compare(x.Number(), y.Number()) })
	for _, f := range fields {
		v := m.Get(f)
		if !f.IsList() {
			writeField(b, f, v)
			continue
		}
		for i := 0; i < v.List().Len() && b.Len() <= contentBytesMax; i++ {
			writeField(b, f, v.List().Get(i))
		}
	}
}

func writeField(b *strings.Builder, f protoreflect.FieldDescriptor, v protoreflect.Value) {
	if b.Len() > contentBytesMax {
		return
	}
	if b.Len() > 0 && !strings.HasSuffix(b.String(), "<") {
		b.WriteByte(' ')
	}
	name := string(f.Name())
	switch {
	case isContent(name) && f.Kind() == protoreflect.BytesKind:
		fmt.Fprintf(b, "%s_size:%d", name, len(v.Bytes()))
	case isSecret(name):
		b.WriteString(name + ":<hidden>")
	case f.Kind() == protoreflect.MessageKind:
		b.WriteString(name + ":<")
		writeFields(b, v.Message())
		b.WriteByte('>')
	case f.Kind() == protoreflect.BytesKind:
		b.WriteString(name + ":" + quoted(string(v.Bytes())))
	case f.Kind() == protoreflect.StringKind:
		b.WriteString(name + ":" + quoted(v.String()))
	case f.Kind() == protoreflect.EnumKind:
		fmt.Fprintf(b, "%s:%s", name, enumText(f, v))
	default:
		fmt.Fprintf(b, "%s:%v", name, v.Interface())
	}
}

// quoted is a key or name, of which no more than the bound is looked at.
func quoted(s string) string { return strconv.Quote(s[:min(len(s), contentBytesMax)]) }

func enumText(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
		return string(e.Name())
	}
	return strconv.Itoa(int(v.Enum()))
}

// isContent tells the fields that hold what clients store.
func isContent(field string) bool { return field == "value" || field == "blob" }

// isSecret tells the fields that open doors.
func isSecret(field string) bool {
	return slices.Contains([]string{"password", "hashedPassword", "hashed_password", "token", "simple_token"}, field)
}
