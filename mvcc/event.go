package mvcc

// EventKind says what happened to a key.
type EventKind uint8

// The kinds of events; the numbers are those of mvccpb.Event.
const (
	EventPut EventKind = iota
	EventDelete
)

// Event is one change of one key, immutable and shared by all who watch it.
type Event struct {
	kind   EventKind
	key    []byte
	rev    Revision
	record []byte // encoded KeyValue; of a deletion only key and revision
	prev   []byte // encoded KeyValue before the change; nil if there was none or it is only in the file
}
