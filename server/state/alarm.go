package state

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kvorum/kvorum/internal/must"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// alarm is an alarm of one member. Member 0 stands for the whole cluster.
type alarm struct {
	member MemberID
	kind   pb.AlarmType
}

// alarms are the active alarms, in order of member and kind.
type alarms []alarm

func compareAlarms(a, b alarm) int {
	return cmp.Or(cmp.Compare(a.member, b.member), cmp.Compare(a.kind, b.kind))
}

// loadAlarms reads the bucket alarm: the key is an encoded AlarmMember, the
// value is empty.
func loadAlarms(store *mvcc.Store) (alarms, error) {
	var as alarms
	err := store.Load(mvcc.BucketAlarm, func(k, _ []byte) error {
		var p pb.AlarmMember
		if err := p.UnmarshalVT(k); err != nil {
			return fmt.Errorf("alarm %x: %w", k, err)
		}
		as = append(as, alarm{member: MemberID(p.MemberID), kind: p.Alarm})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load alarms: %w", err)
	}
	slices.SortFunc(as, compareAlarms)
	return as, nil
}

func (a alarm) message() *pb.AlarmMember {
	return &pb.AlarmMember{MemberID: uint64(a.member), Alarm: a.kind}
}

// bucketKey is the alarm's key in the bucket alarm.
func (a alarm) bucketKey() []byte {
	key, err := a.message().MarshalVT()
	must.NoError(err, "encode an alarm")
	return key
}

// active reports whether any member has this alarm.
func (as alarms) active(kind pb.AlarmType) bool {
	return slices.ContainsFunc(as, func(a alarm) bool { return a.kind == kind })
}

// list returns the alarms of a kind, NONE meaning all.
func (as alarms) list(kind pb.AlarmType) []*pb.AlarmMember {
	var out []*pb.AlarmMember
	for _, a := range as {
		if kind == pb.AlarmType_NONE || kind == a.kind {
			out = append(out, a.message())
		}
	}
	return out
}

// refuse is the guard of the alarms: what grows the store is refused while
// space is short, what changes or trusts the keys while they may be corrupt.
func (as alarms) refuse(r *pb.InternalRaftRequest) error {
	touchesKeys := r.Put != nil || r.Range != nil || r.DeleteRange != nil || r.Txn != nil || r.Compaction != nil ||
		r.LeaseGrant != nil || r.LeaseRevoke != nil || r.V2 != nil
	if touchesKeys && as.active(pb.AlarmType_CORRUPT) {
		return ErrCorrupt
	}
	if as.active(pb.AlarmType_NOSPACE) && QuotaCost(r) > 0 {
		return ErrNoSpace
	}
	return nil
}

// changeAlarm lists, raises or clears alarms.
func (m *Machine) changeAlarm(w *mvcc.Writer, r *pb.AlarmRequest, res *Result) {
	resp := &pb.AlarmResponse{Header: header(w)}
	res.Response = resp
	if r.Action == pb.AlarmRequest_GET {
		resp.Alarms = m.alarms.list(r.Alarm)
		return
	}
	if r.Alarm == pb.AlarmType_NONE {
		return
	}
	a := alarm{member: MemberID(r.MemberID), kind: r.Alarm}
	at, found := slices.BinarySearchFunc(m.alarms, a, compareAlarms)
	switch r.Action {
	case pb.AlarmRequest_ACTIVATE:
		resp.Alarms = []*pb.AlarmMember{a.message()}
		if !found {
			w.Set(mvcc.BucketAlarm, a.bucketKey(), nil)
			m.setAlarms(slices.Insert(slices.Clone(m.alarms), at, a))
		}
	case pb.AlarmRequest_DEACTIVATE:
		if found {
			resp.Alarms = []*pb.AlarmMember{a.message()}
			w.Delete(mvcc.BucketAlarm, a.bucketKey())
			m.setAlarms(slices.Delete(slices.Clone(m.alarms), at, at+1))
		}
	}
}

func (m *Machine) setAlarms(as alarms) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alarms = as
}

// Alarms returns the active alarms of a kind, NONE meaning all, in order of
// member and kind.
func (m *Machine) Alarms(kind pb.AlarmType) []*pb.AlarmMember {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.alarms.list(kind)
}

// RefusedByAlarm is the error that an active alarm has for a command, nil if none has.
func (m *Machine) RefusedByAlarm(r *pb.InternalRaftRequest) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.alarms) == 0 {
		return nil
	}
	return m.alarms.refuse(r)
}

// HasAlarm reports whether any member has an alarm of this kind.
func (m *Machine) HasAlarm(kind pb.AlarmType) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.alarms.active(kind)
}
