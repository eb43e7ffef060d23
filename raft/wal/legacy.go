package wal

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/kvorum/kvorum/internal/must"
)

// Membership is what a .snap file says of the cluster beyond raft's own
// ConfState.
type Membership struct {
	Members        []Member // in any order
	Removed        []uint64 // ids of removed members, in any order
	ClusterVersion string   // "3.7.0"; empty if not decided
}

// Member is one member of the cluster. ClientURLs is empty until the member has
// published itself.
type Member struct {
	ID         uint64
	Name       string
	PeerURLs   []string
	ClientURLs []string
	IsLearner  bool
}

// LegacyTree is the contents of a .snap file's data: the membership in the JSON
// form in which etcd up to 3.6 saved its v2 store. etcd 3.7 and Kvorum never
// read it; 3.6 and 3.5 refuse a snapshot without it.
//
//	/0/members/<id>/raftAttributes   {"peerURLs":[..],"isLearner":true}
//	/0/members/<id>/attributes       {"name":..,"clientURLs":[..]}
//	/0/removed_members/<id>          ""
//	/0/version                       3.7.0
//	/1                               empty
func LegacyTree(m Membership) []byte {
	t := newLegacyTree()
	members := slices.Clone(m.Members)
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	for _, member := range members {
		t.addMember(member)
	}
	removed := slices.Clone(m.Removed)
	slices.Sort(removed)
	for _, id := range removed {
		t.write("create", "", "removed_members", hexID(id))
	}
	if m.ClusterVersion != "" {
		t.write("set", m.ClusterVersion, "version")
	}
	return t.encode()
}

// legacyEvents is the length of the v2 store's event queue.
const legacyEvents = 1000

// legacyTree is a v2 store in the making: the state after a row of writes, and
// those writes as its events.
type legacyTree struct {
	root   *legacyNode
	events []legacyEvent
	stats  legacyStats
}

type legacyNode struct {
	Path          string
	CreatedIndex  int
	ModifiedIndex int
	ExpireTime    string
	Value         string
	Children      map[string]*legacyNode // nil: a file
}

type legacyEvent struct {
	Action string          `json:"action"`
	Node   legacyEventNode `json:"node"`
}

type legacyEventNode struct {
	Key           string `json:"key"`
	Value         string `json:"value"`
	ModifiedIndex int    `json:"modifiedIndex"`
	CreatedIndex  int    `json:"createdIndex"`
}

type legacyStats struct {
	GetsSuccess             int `json:"getsSuccess"`
	GetsFail                int `json:"getsFail"`
	SetsSuccess             int `json:"setsSuccess"`
	SetsFail                int `json:"setsFail"`
	DeleteSuccess           int `json:"deleteSuccess"`
	DeleteFail              int `json:"deleteFail"`
	UpdateSuccess           int `json:"updateSuccess"`
	UpdateFail              int `json:"updateFail"`
	CreateSuccess           int `json:"createSuccess"`
	CreateFail              int `json:"createFail"`
	CompareAndSwapSuccess   int `json:"compareAndSwapSuccess"`
	CompareAndSwapFail      int `json:"compareAndSwapFail"`
	CompareAndDeleteSuccess int `json:"compareAndDeleteSuccess"`
	CompareAndDeleteFail    int `json:"compareAndDeleteFail"`
	ExpireCount             int `json:"expireCount"`
	Watchers                int `json:"watchers"`
}

func newLegacyTree() *legacyTree {
	t := &legacyTree{root: newLegacyNode("/", 0)}
	t.root.dir("0", 0)
	t.root.dir("1", 0)
	return t
}

func newLegacyNode(path string, index int) *legacyNode {
	return &legacyNode{
		Path: path, CreatedIndex: index, ModifiedIndex: index,
		ExpireTime: "0001-01-01T00:00:00Z", Children: map[string]*legacyNode{},
	}
}

// dir is the directory name in n, made at index if missing.
func (n *legacyNode) dir(name string, index int) *legacyNode {
	child := n.Children[name]
	if child == nil {
		path := n.Path + "/" + name
		if n.Path == "/" {
			path = "/" + name
		}
		child = newLegacyNode(path, index)
		n.Children[name] = child
	}
	return child
}

func (t *legacyTree) addMember(m Member) {
	raft := struct {
		PeerURLs  []string `json:"peerURLs"`
		IsLearner bool     `json:"isLearner,omitempty"`
	}{m.PeerURLs, m.IsLearner}
	t.write("create", encodeLegacy(raft), "members", hexID(m.ID), "raftAttributes")
	if len(m.ClientURLs) == 0 {
		return
	}
	public := struct {
		Name       string   `json:"name,omitempty"`
		ClientURLs []string `json:"clientURLs,omitempty"`
	}{m.Name, m.ClientURLs}
	t.write("set", encodeLegacy(public), "members", hexID(m.ID), "attributes")
}

// write makes a file under /0 and its event.
func (t *legacyTree) write(action, value string, path ...string) {
	index := len(t.events) + 1
	node := t.root.Children["0"]
	for _, name := range path {
		node = node.dir(name, index)
	}
	node.Value, node.Children = value, nil
	t.events = append(t.events, legacyEvent{action, legacyEventNode{node.Path, value, index, index}})
	if action == "create" {
		t.stats.CreateSuccess++
	} else {
		t.stats.SetsSuccess++
	}
}

func (t *legacyTree) encode() []byte {
	type queue struct {
		Events   []*legacyEvent
		Size     int
		Front    int
		Back     int
		Capacity int
	}
	type history struct {
		Queue      queue
		StartIndex int
		LastIndex  int
	}
	type hub struct{ EventHistory history }
	n := len(t.events)
	q := queue{Events: make([]*legacyEvent, legacyEvents), Size: min(n, legacyEvents), Back: n % legacyEvents, Capacity: legacyEvents}
	if n >= legacyEvents {
		q.Front = q.Back // full: the oldest is overwritten next
	}
	for i := n - q.Size; i < n; i++ {
		q.Events[i%legacyEvents] = &t.events[i]
	}
	return []byte(encodeLegacy(struct {
		Root           *legacyNode
		WatcherHub     hub
		CurrentIndex   int
		Stats          legacyStats
		CurrentVersion int
	}{t.root, hub{history{q, max(n-legacyEvents, 0) + 1, n}}, n, t.stats, 2}))
}

func encodeLegacy(v any) string {
	b, err := json.Marshal(v)
	must.NoError(err, "encode the legacy membership tree")
	return string(b)
}

func hexID(id uint64) string { return strconv.FormatUint(id, 16) }
