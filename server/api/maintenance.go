package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// snapshotChunkBytes is the size of a blob on the snapshot stream.
const snapshotChunkBytes = 32 << 10

// Maintenance serves etcdserverpb.Maintenance.
type Maintenance struct {
	pb.UnimplementedMaintenanceServer
	*Services
}

// Alarm lists, raises or clears alarms.
func (m Maintenance) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	response, err := propose[*pb.AlarmResponse](ctx, m.Services, &pb.InternalRaftRequest{Alarm: r})
	if err != nil {
		return nil, err
	}
	response.Header = m.own(response.Header)
	return response, nil
}

// Status tells how this member is, from what it knows itself.
func (m Maintenance) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	raft, db := m.member.RaftStatus(), m.store.Stats()
	downgrade := m.machine.Downgrade()
	response := &pb.StatusResponse{
		Header: m.current(), Version: raft.APIVersion, StorageVersion: raft.StorageFormat,
		DbSize: db.SizeBytes, DbSizeInUse: db.InUseBytes, DbSizeQuota: raft.Quota,
		Leader: raft.Leader, RaftTerm: raft.Term, RaftIndex: raft.Committed, RaftAppliedIndex: raft.Applied,
		IsLearner:     raft.Learner,
		DowngradeInfo: &pb.DowngradeInfo{Enabled: downgrade.Enabled, TargetVersion: downgrade.TargetVersion},
	}
	if raft.Leader == 0 {
		response.Errors = append(response.Errors, ErrNoLeader.Error())
	}
	for _, a := range m.machine.Alarms(pb.AlarmType_NONE) {
		response.Errors = append(response.Errors, alarmText(a))
	}
	return response, nil
}

// alarmText is the alarm in the protobuf library's text form, in which an unset member is left out.
func alarmText(a *pb.AlarmMember) string {
	if a.MemberID == 0 {
		return "alarm:" + a.Alarm.String()
	}
	return fmt.Sprintf("memberID:%d  alarm:%s", a.MemberID, a.Alarm)
}

// Defragment gives free pages of the database file back to the disk.
func (m Maintenance) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := m.member.Defragment(ctx); err != nil {
		return nil, m.errors.Status(err)
	}
	return &pb.DefragmentResponse{}, nil
}

// Hash is a checksum of the whole database.
func (m Maintenance) Hash(context.Context, *pb.HashRequest) (*pb.HashResponse, error) {
	hash, err := m.store.Hash()
	if err != nil {
		return nil, m.errors.Status(err)
	}
	return &pb.HashResponse{Header: m.current(), Hash: hash}, nil
}

// HashKV is a checksum of the revisions up to one.
func (m Maintenance) HashKV(_ context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	h, err := m.store.HashKV(mvcc.Revision(r.Revision))
	if err != nil {
		return nil, m.errors.Status(err)
	}
	return &pb.HashKVResponse{
		Header: m.header(h.Revision), Hash: h.Hash,
		CompactRevision: int64(h.CompactRevision), HashRevision: int64(h.HashRevision),
	}, nil
}

// Snapshot streams the database file, then the SHA-256 of it.
func (m Maintenance) Snapshot(_ *pb.SnapshotRequest, stream grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	snapshot, err := m.store.Snapshot(stream.Context())
	if err != nil {
		return m.errors.Status(err)
	}
	defer snapshot.Close()
	return m.errors.Status(sendSnapshot(snapshot, snapshot.Size(), m.member.RaftStatus().StorageFormat, stream.Send))
}

func sendSnapshot(body io.Reader, size int64, version string, send func(*pb.SnapshotResponse) error) error {
	sum := sha256.New()
	left := uint64(size)
	chunk := make([]byte, snapshotChunkBytes) // used again: send encodes before it returns
	for {
		n, err := io.ReadFull(body, chunk)
		if n > 0 {
			sum.Write(chunk[:n])
			left -= uint64(n)
			if err := send(&pb.SnapshotResponse{RemainingBytes: left, Blob: chunk[:n], Version: version}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
	}
	return send(&pb.SnapshotResponse{Blob: sum.Sum(nil), Version: version})
}

// MoveLeader hands leadership to another voter and waits until it leads.
func (m Maintenance) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := m.member.MoveLeader(ctx, r.TargetID); err != nil {
		return nil, m.errors.Status(err)
	}
	return &pb.MoveLeaderResponse{}, nil
}
