package state

import "testing"

// If this fails, an etcd member in the same cluster cannot read what this one
// proposes: the JSON of a membership change has other keys or another order.
func TestContextsOfMembershipChanges(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"bootstrap", MemberContext(Member{ID: 14720799474854129801, PeerURLs: []string{"http://a:2380"}, Name: "a"}),
			`{"id":14720799474854129801,"peerURLs":["http://a:2380"],"name":"a"}`},
		{"add", MemberContext(Member{ID: 7, PeerURLs: []string{"http://a:2380", "http://b:2380"}}),
			`{"id":7,"peerURLs":["http://a:2380","http://b:2380"]}`},
		{"add learner", MemberContext(Member{ID: 7, PeerURLs: []string{"http://a:2380"}, IsLearner: true}),
			`{"id":7,"peerURLs":["http://a:2380"],"isLearner":true}`},
		{"promote", PromoteContext(7),
			`{"id":7,"peerURLs":null,"isPromote":true}`},
		{"all", MemberContext(Member{ID: 7, PeerURLs: []string{}, IsLearner: true, Name: "n", ClientURLs: []string{"http://c:2379"}}),
			`{"id":7,"peerURLs":[],"isLearner":true,"name":"n","clientURLs":["http://c:2379"]}`},
		{"conf state", ConfState{Voters: []MemberID{1, 14720799474854129801}, Learners: []MemberID{3}}.Encode(),
			`{"voters":[1,14720799474854129801],"learners":[3],"auto_leave":false}`},
	} {
		if string(c.got) != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, c.got, c.want)
		}
	}
}

// If this fails, what this member proposes for bootstrap and promotion is
// refused when it is applied, and a cluster cannot be formed or grown.
func TestProposedContextsAreAccepted(t *testing.T) {
	m := newMember(t)
	learner := Member{ID: 9, PeerURLs: []string{"http://l:2380"}, IsLearner: true}
	for _, cc := range []ConfChange{
		{Kind: AddNode, Member: 1, Context: MemberContext(Member{ID: 1, PeerURLs: []string{"http://a:2380"}, Name: "a"})},
		{Kind: AddLearnerNode, Member: 9, Context: MemberContext(learner)},
		{Kind: AddNode, Member: 9, Context: PromoteContext(9)},
		{Kind: UpdateNode, Member: 9, Context: MemberContext(Member{ID: 9, PeerURLs: []string{"http://l2:2380"}})},
	} {
		if res := m.machine.ApplyConfChange(m.next(), cc); res.Err != nil {
			t.Fatalf("%+v: %v", cc, res.Err)
		}
	}
	got, ok := m.machine.Member(9)
	if !ok || got.IsLearner || got.PeerURLs[0] != "http://l2:2380" {
		t.Fatalf("member 9 is %+v, %v", got, ok)
	}
}
