package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Status asks one endpoint how it is.
func (c *Client) Status(ctx context.Context, endpoint string) (*pb.StatusResponse, error) {
	one, err := c.At(endpoint)
	if err != nil {
		return nil, err
	}
	return one.Maintenance.Status(ctx, &pb.StatusRequest{})
}

// HashKV asks one endpoint for the hash of its keys at rev (0: the newest).
func (c *Client) HashKV(ctx context.Context, endpoint string, rev int64) (*pb.HashKVResponse, error) {
	one, err := c.At(endpoint)
	if err != nil {
		return nil, err
	}
	return one.Maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
}

// Defragment makes one endpoint rewrite its database file.
func (c *Client) Defragment(ctx context.Context, endpoint string) error {
	one, err := c.At(endpoint)
	if err != nil {
		return err
	}
	_, err = one.Maintenance.Defragment(ctx, &pb.DefragmentRequest{})
	return err
}

// Alarms lists the alarms that are on.
func (c *Client) Alarms(ctx context.Context) (*pb.AlarmResponse, error) {
	return c.Maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
}

// Members lists the members, as the quorum or (local) as one member knows them.
func (c *Client) Members(ctx context.Context, local bool) (*pb.MemberListResponse, error) {
	return c.Cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: !local})
}

// Sync replaces the endpoints by the client URLs of all started members.
func (c *Client) Sync(ctx context.Context) error {
	r, err := c.Members(ctx, false)
	if err != nil {
		return err
	}
	var urls []string
	for _, m := range r.Members {
		if m.Name != "" && !m.IsLearner {
			urls = append(urls, m.ClientURLs...)
		}
	}
	if len(urls) == 0 {
		return errors.New("client: no member announces a client URL")
	}
	return c.SetEndpoints(urls...)
}

// SnapshotStream is a snapshot on its way from a member.
type SnapshotStream struct {
	// Version is the storage version that the member wrote, "" from old ones.
	Version string
	// SizeBytes is the length of the whole stream, the hash at the end included.
	SizeBytes int64

	stream  pb.Maintenance_SnapshotClient
	ctx     context.Context
	cancel  context.CancelFunc
	pending []byte
	tail    []byte // the last 32 bytes given out: the hash, at the end
	sum     hash.Hash
}

// Snapshot opens a snapshot: the bytes of the database and then the SHA-256 of
// them. Read returns io.EOF only when that hash was right.
func (c *Client) Snapshot(ctx context.Context) (*SnapshotStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &SnapshotStream{ctx: ctx, cancel: cancel, sum: sha256.New()}
	err := c.reopen(ctx, func() (bool, error) {
		stream, err := c.Maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
		if err != nil {
			return false, err
		}
		m, err := stream.Recv()
		if err != nil {
			return false, err
		}
		s.stream, s.pending, s.Version = stream, m.Blob, m.Version
		s.SizeBytes = int64(m.RemainingBytes) + int64(len(m.Blob)) + sha256.Size
		return true, io.EOF
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// Read implements io.Reader.
func (s *SnapshotStream) Read(p []byte) (int, error) {
	for len(s.pending) == 0 {
		m, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, s.check()
		}
		if err != nil {
			return 0, typed(s.ctx, err)
		}
		s.pending = m.Blob
		if m.Version != "" {
			s.Version = m.Version
		}
	}
	n := copy(p, s.pending)
	s.pending = s.pending[n:]
	s.keepTail(p[:n])
	return n, nil
}

// keepTail hashes everything but the last 32 bytes seen so far.
func (s *SnapshotStream) keepTail(b []byte) {
	s.tail = append(s.tail, b...)
	if more := len(s.tail) - sha256.Size; more > 0 {
		s.sum.Write(s.tail[:more])
		s.tail = append(s.tail[:0], s.tail[more:]...)
	}
}

func (s *SnapshotStream) check() error {
	if got := s.sum.Sum(nil); !bytes.Equal(got, s.tail) {
		return fmt.Errorf("sha256 mismatch [computed: %x, from member: %x]", got, s.tail)
	}
	return io.EOF
}

// Close ends the stream.
func (s *SnapshotStream) Close() error {
	s.cancel()
	return nil
}

// reopen runs try until it ends well (io.EOF or nil), has started to deliver,
// or fails with something that another attempt cannot cure.
func (c *Client) reopen(ctx context.Context, try func() (started bool, err error)) error {
	renewed := false
	for attempt := 0; ; attempt++ {
		token := c.tokens.get()
		started, raw := try()
		if raw == nil || errors.Is(raw, io.EOF) {
			return nil
		}
		err := typed(ctx, raw)
		switch {
		case started || ctx.Err() != nil || attempt >= retriesMax:
			return err
		case !renewed && c.wantsToken(err):
			renewed = true
			if c.renew(ctx, token) != nil {
				return err
			}
		case status.Code(raw) == codes.Unavailable:
			if pause(ctx, attempt) != nil {
				return err
			}
		default:
			return err
		}
	}
}
