package print

import (
	"fmt"
	"strings"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// MemberList shows the members.
func (p *Printer) MemberList(r *pb.MemberListResponse) error {
	headings := []string{"ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"}
	var shown any = r
	if p.hex {
		shown = hexMembers(r)
	}
	return p.show(forms{
		simple: func() {
			for _, row := range memberRows(r) {
				p.line("%s", strings.Join(row, ", "))
			}
		},
		fields: func() { p.fieldsMembers(r) },
		table:  func() { p.tabular(headings, memberRows(r)) },
		json:   shown,
		proto:  r,
	})
}

func memberRows(r *pb.MemberListResponse) (rows [][]string) {
	for _, m := range r.Members {
		status := "started"
		if m.Name == "" {
			status = "unstarted"
		}
		rows = append(rows, []string{
			fmt.Sprintf("%x", m.ID), status, m.Name, strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ","),
			fmt.Sprint(m.IsLearner),
		})
	}
	return rows
}

func (p *Printer) fieldsMembers(r *pb.MemberListResponse) {
	p.headerFields(r.Header)
	for _, m := range r.Members {
		p.field("ID", p.id(m.ID))
		p.field("Name", quoted([]byte(m.Name)))
		for _, u := range m.PeerURLs {
			p.field("PeerURL", quoted([]byte(u)))
		}
		for _, u := range m.ClientURLs {
			p.field("ClientURL", quoted([]byte(u)))
		}
		p.field("IsLearner", m.IsLearner)
		p.line("")
	}
}

func hexMembers(r *pb.MemberListResponse) any {
	type header struct {
		ClusterID string `json:"cluster_id"`
		MemberID  string `json:"member_id"`
		RaftTerm  uint64 `json:"raft_term,omitempty"`
	}
	type member struct {
		ID         string   `json:"ID"`
		Name       string   `json:"name,omitempty"`
		PeerURLs   []string `json:"peerURLs,omitempty"`
		ClientURLs []string `json:"clientURLs,omitempty"`
		IsLearner  bool     `json:"isLearner,omitempty"`
	}
	all := make([]member, len(r.Members))
	for i, m := range r.Members {
		all[i] = member{fmt.Sprintf("%x", m.ID), m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner}
	}
	h := r.Header
	return struct {
		Header  header   `json:"header"`
		Members []member `json:"members"`
	}{header{fmt.Sprintf("%x", h.GetClusterId()), fmt.Sprintf("%x", h.GetMemberId()), h.GetRaftTerm()}, all}
}

// MemberAdd shows a new member and how to start it as name.
func (p *Printer) MemberAdd(r *pb.MemberAddResponse, name string) error {
	return p.show(forms{
		simple: func() { p.simpleMemberAdd(r, name) }, json: r, proto: r,
	})
}

func (p *Printer) simpleMemberAdd(r *pb.MemberAddResponse, name string) {
	as := "added"
	if r.Member.GetIsLearner() {
		as = "added as learner"
	}
	p.line("Member %16x %s to cluster %16x", r.Member.GetID(), as, r.Header.GetClusterId())
	var initial []string
	for _, m := range r.Members {
		n := m.Name
		if m.ID == r.Member.GetID() {
			n = name
		}
		for _, u := range m.PeerURLs {
			initial = append(initial, n+"="+u)
		}
	}
	p.line("\nETCD_NAME=%q", name)
	p.line("ETCD_INITIAL_CLUSTER=%q", strings.Join(initial, ","))
	p.line("ETCD_INITIAL_ADVERTISE_PEER_URLS=%q", strings.Join(r.Member.GetPeerURLs(), ","))
	p.line("ETCD_INITIAL_CLUSTER_STATE=\"existing\"")
}

// MemberRemove shows that a member is gone.
func (p *Printer) MemberRemove(id uint64, r *pb.MemberRemoveResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		p.line("Member %16x removed from cluster %16x", id, r.Header.GetClusterId())
	}})
}

// MemberUpdate shows that a member has new addresses.
func (p *Printer) MemberUpdate(id uint64, r *pb.MemberUpdateResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		p.line("Member %16x updated in cluster %16x", id, r.Header.GetClusterId())
	}})
}

// MemberPromote shows that a learner became a voter.
func (p *Printer) MemberPromote(id uint64, r *pb.MemberPromoteResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		p.line("Member %16x promoted in cluster %16x", id, r.Header.GetClusterId())
	}})
}

// MoveLeader shows a change of leader.
func (p *Printer) MoveLeader(from, to uint64, r *pb.MoveLeaderResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		p.line("Leadership transferred from %x to %x", from, to)
	}})
}

// Downgrade shows what became of a downgrade: validate, enable or cancel.
func (p *Printer) Downgrade(what string, r *pb.DowngradeResponse) error {
	return p.show(forms{json: r, proto: r, simple: func() {
		p.line("Downgrade %s success, cluster version %s", what, r.Version)
	}})
}
