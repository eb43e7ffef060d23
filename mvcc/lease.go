package mvcc

import (
	"bytes"
	"slices"
)

// attachments say which keys belong to which lease.
type attachments map[LeaseID]map[string]struct{}

func (a attachments) attach(id LeaseID, key string) {
	if id == 0 {
		return
	}
	keys := a[id]
	if keys == nil {
		keys = make(map[string]struct{})
		a[id] = keys
	}
	keys[key] = struct{}{}
}

func (a attachments) detach(id LeaseID, key string) {
	if id == 0 {
		return
	}
	delete(a[id], key)
	if len(a[id]) == 0 {
		delete(a, id)
	}
}

// LeaseKeys returns the sorted keys attached to the lease, those of entries
// that are not yet published included. Any goroutine may call it.
func (s *Store) LeaseKeys(id LeaseID) [][]byte {
	s.mu.Lock()
	keys := make([][]byte, 0, len(s.leases[id]))
	for k := range s.leases[id] {
		keys = append(keys, bytesOf(k))
	}
	s.mu.Unlock()
	slices.SortFunc(keys, bytes.Compare)
	return keys
}
