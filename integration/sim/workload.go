package sim

import (
	"fmt"

	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/membershippb"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/state"
)

// propose offers one to three commands.
func (m *member) propose() {
	var commands [][]byte
	var ids []uint64
	var requests []*pb.InternalRaftRequest
	for range 1 + m.sim.rng.IntN(3) {
		r := m.sim.drawRequest(int64(m.store.Revision()), len(m.sim.members))
		data, id := m.sim.encode(r)
		commands, ids, requests = append(commands, data), append(ids, id), append(requests, r)
	}
	for i, id := range ids[:m.node.Propose(commands...)] {
		m.waiting[id] = requests[i]
	}
}

// put proposes one write and returns its id, 0 if it was not taken.
func (m *member) put(key, value []byte) uint64 {
	r := &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: key, Value: value}}
	data, id := m.sim.encode(r)
	if m.node.Propose(data) == 0 {
		return 0
	}
	m.waiting[id] = r
	return id
}

// encode gives a request its id.
func (s *Sim) encode(r *pb.InternalRaftRequest) ([]byte, uint64) {
	s.serial++
	r.Header = &pb.RequestHeader{ID: s.serial}
	data, err := r.MarshalVT()
	if err != nil {
		panic(err)
	}
	return data, s.serial
}

func (s *Sim) percent(p int) bool { return s.rng.IntN(100) < p }
func (s *Sim) key() []byte        { return fmt.Appendf(nil, "k%02d", s.rng.IntN(30)) }
func (s *Sim) lease() int64       { return int64(1 + s.rng.IntN(12)) }

// end draws the end of a range: mostly none, sometimes a key, rarely all.
func (s *Sim) end() []byte {
	switch n := s.rng.IntN(10); {
	case n < 6:
		return nil
	case n < 9:
		return s.key()
	}
	return []byte{0}
}

func (s *Sim) drawPut() *pb.PutRequest {
	r := &pb.PutRequest{Key: s.key(), Value: make([]byte, s.rng.IntN(s.swarm.bytesMax)), PrevKv: s.percent(20)}
	for i := range r.Value {
		r.Value[i] = byte(s.rng.Uint32())
	}
	switch {
	case s.percent(25):
		r.Lease = s.lease()
	case s.percent(5):
		r.Lease = s.kept()
	case s.percent(5):
		r.IgnoreValue, r.Value = true, nil
	case s.percent(5):
		r.IgnoreLease = true
	}
	return r
}

func (s *Sim) drawRange(revision int64) *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: s.key(), RangeEnd: s.end(), Revision: revision, Limit: int64(s.rng.IntN(4)), CountOnly: s.percent(10), KeysOnly: s.percent(10),
	}
}

func (s *Sim) drawTxn(depth int) *pb.TxnRequest {
	c := &pb.Compare{Key: s.key(), Result: pb.Compare_CompareResult(s.rng.IntN(4)), Target: pb.Compare_VERSION}
	c.TargetUnion = &pb.Compare_Version{Version: int64(s.rng.IntN(4))}
	return &pb.TxnRequest{Compare: []*pb.Compare{c}, Success: s.drawOps(depth), Failure: s.drawOps(depth)}
}

func (s *Sim) drawOps(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range s.rng.IntN(4) {
		op := &pb.RequestOp{}
		switch n := s.rng.IntN(10); {
		case n < 5:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: s.drawPut()}
		case n < 7:
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: s.key(), RangeEnd: s.end(), PrevKv: s.percent(20)}}
		case n < 9 || depth == 0:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: s.drawRange(0)}
		default:
			op.Request = &pb.RequestOp_RequestTxn{RequestTxn: s.drawTxn(depth - 1)}
		}
		ops = append(ops, op)
	}
	return ops
}

// drawRequest draws a command; revision is about the newest.
func (s *Sim) drawRequest(revision int64, members int) *pb.InternalRaftRequest {
	r := &pb.InternalRaftRequest{}
	switch n := s.rng.IntN(100); {
	case n < 50:
		r.Put = s.drawPut()
	case n < 65:
		r.Txn = s.drawTxn(1)
	case n < 72:
		r.DeleteRange = &pb.DeleteRangeRequest{Key: s.key(), RangeEnd: s.end(), PrevKv: s.percent(20)}
	case n < 80:
		r.LeaseGrant = &pb.LeaseGrantRequest{ID: s.lease(), TTL: int64(s.rng.IntN(100))}
	case n < 86:
		r.LeaseRevoke = &pb.LeaseRevokeRequest{ID: s.lease()}
	case n < 91:
		r.Compaction = &pb.CompactionRequest{Revision: revision - int64(s.rng.IntN(30)) + 2}
	case n < 93:
		r.LeaseCheckpoint = &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: s.lease(), Remaining_TTL: int64(s.rng.IntN(50))}}}
	case n < 95:
		r.ClusterVersionSet = &membershippb.ClusterVersionSetRequest{Ver: pick(s.rng, "3.5.0", "3.6.0", "3.7.0")}
	case n < 97:
		id := uint64(1 + s.rng.IntN(members))
		r.ClusterMemberAttrSet = &membershippb.ClusterMemberAttrSetRequest{Member_ID: id, MemberAttributes: &membershippb.Attributes{
			Name: fmt.Sprint("n", id), ClientUrls: []string{fmt.Sprint("http://c", s.rng.IntN(3))}}}
	default:
		s.drawOther(r)
	}
	return r
}

// drawOther draws what lives in the small buckets. An alarm refuses much, so it
// is lifted more often than raised.
func (s *Sim) drawOther(r *pb.InternalRaftRequest) {
	name := fmt.Sprint("r", s.rng.IntN(3))
	switch s.rng.IntN(6) {
	case 0:
		r.AuthRoleAdd = &pb.AuthRoleAddRequest{Name: name}
	case 1:
		r.AuthRoleDelete = &pb.AuthRoleDeleteRequest{Role: name}
	case 2:
		r.AuthUserAdd = &pb.AuthUserAddRequest{Name: name, Options: &authpb.UserAddOptions{NoPassword: true}}
	case 3:
		r.AuthRoleGrantPermission = &pb.AuthRoleGrantPermissionRequest{Name: name, Perm: &authpb.Permission{Key: s.key()}}
	default:
		action := pb.AlarmRequest_DEACTIVATE
		if s.percent(20) {
			action = pb.AlarmRequest_ACTIVATE
		}
		r.Alarm = &pb.AlarmRequest{Action: action, MemberID: 1, Alarm: pb.AlarmType_NOSPACE}
	}
}

// proposeMembers proposes a membership change. Only leaders do, whose view
// holds everything in their log; a cluster of two voters stays one of two, as
// the last words of one that leaves may be lost.
func (m *member) proposeMembers() {
	if m.node.Status().Role != raft.Leader {
		return
	}
	s := m.sim
	members := m.machine.Members()
	any := members[s.rng.IntN(len(members))]
	var cc raft.ConfChange
	switch n := s.rng.IntN(10); {
	case n < 4 && len(members) < membersMax:
		id, learner := s.nextID(), s.percent(60)
		cc = raft.ConfChange{Kind: raft.AddVoter, Member: id, Context: state.MemberContext(stateMember(id, learner))}
		if learner {
			cc.Kind = raft.AddLearner
		}
	case n < 7:
		cc = raft.ConfChange{Kind: raft.AddVoter, Member: raft.MemberID(any.ID), Context: state.PromoteContext(any.ID)}
	case n < 8:
		any.PeerURLs = []string{fmt.Sprintf("http://m%d", any.ID), fmt.Sprintf("http://m%d.%d", any.ID, s.rng.IntN(3))}
		cc = raft.ConfChange{Kind: raft.UpdateMember, Member: raft.MemberID(any.ID), Context: state.MemberContext(any)}
	case any.IsLearner || len(m.voters()) > 2:
		cc = raft.ConfChange{Kind: raft.RemoveMember, Member: raft.MemberID(any.ID)}
	default:
		return
	}
	s.serial++
	cc.ID = s.serial
	if m.node.ProposeConfChange(cc) {
		m.waiting[cc.ID] = nil
	}
}

// nextID is the id for a member to add: the last one again if it never came
// about, since the proposal may have been lost.
func (s *Sim) nextID() raft.MemberID {
	if last := s.members[len(s.members)-1]; last.fs == nil && !last.removed {
		return last.id
	}
	return s.newMember().id
}
