package print

import (
	"fmt"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// headerJSON are the fields of a header, to be embedded beside others.
type headerJSON struct {
	ClusterID uint64 `json:"cluster_id,omitempty"`
	MemberID  uint64 `json:"member_id,omitempty"`
	Revision  int64  `json:"revision,omitempty"`
	RaftTerm  uint64 `json:"raft_term,omitempty"`
}

func inline(h *pb.ResponseHeader) headerJSON {
	return headerJSON{h.GetClusterId(), h.GetMemberId(), h.GetRevision(), h.GetRaftTerm()}
}

// Grant shows a new lease.
func (p *Printer) Grant(r *pb.LeaseGrantResponse) error {
	return p.show(forms{
		simple: func() { p.line("lease %s granted with TTL(%ds)", LeaseID(r.ID), r.TTL) },
		fields: func() {
			p.headerFields(r.Header)
			p.field("ID", p.lease(r.ID))
			p.field("TTL", r.TTL)
		},
		json: struct {
			headerJSON
			ID    int64
			TTL   int64
			Error string
		}{inline(r.Header), r.ID, r.TTL, r.Error},
		proto: r,
	})
}

// Revoke shows that a lease was revoked.
func (p *Printer) Revoke(id int64, r *pb.LeaseRevokeResponse) error {
	return p.show(forms{
		simple: func() { p.line("lease %s revoked", LeaseID(id)) },
		fields: func() { p.headerFields(r.Header) },
		json:   r,
	})
}

// KeepAlive shows a renewal.
func (p *Printer) KeepAlive(r *pb.LeaseKeepAliveResponse) error {
	return p.show(forms{
		simple: func() { p.line("lease %s keepalived with TTL(%d)", LeaseID(r.ID), r.TTL) },
		fields: func() {
			p.headerFields(r.Header)
			p.field("ID", p.lease(r.ID))
			p.field("TTL", r.TTL)
		},
		json: struct {
			headerJSON
			ID  int64
			TTL int64
		}{inline(r.Header), r.ID, r.TTL},
		proto: r,
	})
}

// TimeToLive shows how long a lease lives, with its keys when asked for.
func (p *Printer) TimeToLive(r *pb.LeaseTimeToLiveResponse, keys bool) error {
	return p.show(forms{
		simple: func() { p.simpleTimeToLive(r, keys) },
		fields: func() {
			p.headerFields(r.Header)
			p.field("ID", p.lease(r.ID))
			p.field("TTL", r.TTL)
			p.field("GrantedTTL", r.GrantedTTL)
			for _, k := range r.Keys {
				p.field("Key", quoted(k))
			}
		},
		json: struct {
			headerJSON
			ID         int64    `json:"id"`
			TTL        int64    `json:"ttl"`
			GrantedTTL int64    `json:"granted-ttl"`
			Keys       [][]byte `json:"keys"`
		}{inline(r.Header), r.ID, r.TTL, r.GrantedTTL, r.Keys},
		proto: r,
	})
}

func (p *Printer) simpleTimeToLive(r *pb.LeaseTimeToLiveResponse, keys bool) {
	if r.GrantedTTL == 0 && r.TTL == -1 {
		p.line("lease %s already expired", LeaseID(r.ID))
		return
	}
	s := fmt.Sprintf("lease %s granted with TTL(%ds), remaining(%ds)", LeaseID(r.ID), r.GrantedTTL, r.TTL)
	if keys {
		names := make([]string, len(r.Keys))
		for i := range r.Keys {
			names[i] = string(r.Keys[i])
		}
		s += fmt.Sprintf(", attached keys(%v)", names)
	}
	p.line("%s", s)
}

// Leases shows all leases.
func (p *Printer) Leases(r *pb.LeaseLeasesResponse) error {
	type lease struct {
		ID int64 `json:"id"`
	}
	all := make([]lease, len(r.Leases))
	for i, l := range r.Leases {
		all[i].ID = l.ID
	}
	return p.show(forms{
		simple: func() {
			p.line("found %d leases", len(r.Leases))
			for _, l := range r.Leases {
				p.line("%s", LeaseID(l.ID))
			}
		},
		fields: func() {
			p.headerFields(r.Header)
			for _, l := range r.Leases {
				p.field("ID", p.lease(l.ID))
			}
		},
		json: struct {
			headerJSON
			Leases []lease `json:"leases"`
		}{inline(r.Header), all},
		proto: r,
	})
}
