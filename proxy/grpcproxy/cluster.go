package grpcproxy

import (
	"context"
	"encoding/json"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// clusterService serves etcdserverpb.Cluster where proxies register: the list of
// members is that of the proxies, so that clients that follow it stay with them.
// All else is about the members themselves.
type clusterService struct {
	pb.UnimplementedClusterServer
	*Proxy
}

// registration is what a proxy writes about itself, as etcd's naming has it.
type registration struct {
	Op       int
	Addr     string
	Metadata string // JSON of registrationName
}

type registrationName struct {
	Name string `json:"name"`
}

// MemberList lists the proxies that are registered, with the caller's credentials.
func (s clusterService) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	prefix := s.registrationPrefix()
	all, err := s.client.KV.Range(outgoing(ctx), &pb.RangeRequest{Key: prefix, RangeEnd: prefixEnd(prefix), Serializable: !r.Linearizable}, callOptions()...)
	if err != nil {
		return nil, err
	}
	response := &pb.MemberListResponse{Header: all.Header}
	response.Header.Revision = 0
	for _, kv := range all.Kvs {
		var entry registration
		if json.Unmarshal(kv.Value, &entry) != nil || entry.Addr == "" {
			continue // not written by a proxy
		}
		var about registrationName
		_ = json.Unmarshal([]byte(entry.Metadata), &about) // a nameless proxy is one too
		response.Members = append(response.Members, &pb.Member{Name: about.Name, ClientURLs: []string{entry.Addr}})
	}
	return response, nil
}

// MemberAdd adds a member to the cluster.
func (s clusterService) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	return s.client.Cluster.MemberAdd(outgoing(ctx), r, callOptions()...)
}

// MemberRemove removes a member.
func (s clusterService) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	return s.client.Cluster.MemberRemove(outgoing(ctx), r, callOptions()...)
}

// MemberUpdate changes a member's peer URLs.
func (s clusterService) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	return s.client.Cluster.MemberUpdate(outgoing(ctx), r, callOptions()...)
}

// MemberPromote makes a learner a voter.
func (s clusterService) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	return s.client.Cluster.MemberPromote(outgoing(ctx), r, callOptions()...)
}
