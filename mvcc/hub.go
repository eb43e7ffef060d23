package mvcc

// history is what watching needs of the store: the past.
type history interface {
	history(from, to Revision, key, end []byte, recordsMax, bytesMax int) (events []*Event, next Revision, err error)
	valueAt(key []byte, before Revision) ([]byte, error)
	CompactRevision() Revision
}

// hub keeps the newest revision that watchers were told of.
type hub struct {
	past    history
	current Revision
}

func newHub(past history, current Revision) *hub { return &hub{past: past, current: current} }

// publish tells watchers of a batch of events.
func (h *hub) publish(rev Revision, _ []*Event) { h.current = rev }

// reset tells watchers that the whole state was replaced.
func (h *hub) reset(current Revision) { h.current = current }
