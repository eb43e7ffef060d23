package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/coreos/go-semver/semver"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/proto/membershippb"
)

// Keys in the buckets cluster and meta.
const (
	clusterVersionKey = "clusterVersion"
	downgradeKey      = "downgrade"
	storageVersionKey = "storageVersion"
)

// ConfStateKey is where the bucket meta has the ConfState.
const ConfStateKey = "confState"

// Downgrade says whether the cluster is being moved to a lower version. Its
// JSON is the value in the bucket cluster.
type Downgrade struct {
	TargetVersion string `json:"target-version"`
	Enabled       bool   `json:"enabled"`
}

// cluster is what the cluster knows of itself.
type cluster struct {
	members   map[MemberID]Member
	removed   map[MemberID]struct{}
	version   *semver.Version // nil: not decided yet
	storage   string          // storage version; "": none written
	downgrade Downgrade
}

// majorMinor is the part of a version that decides what members understand.
type majorMinor struct{ major, minor int64 }

var (
	// checkpointVersion is the first that stores lease checkpoints.
	checkpointVersion = majorMinor{3, 6}
	// storageKeyVersion is the first whose database names its own version.
	storageKeyVersion = majorMinor{3, 6}
)

func loadCluster(store *mvcc.Store) (cluster, error) {
	var (
		c   cluster
		err error
	)
	if c.members, err = loadMembers(store); err != nil {
		return c, err
	}
	if c.removed, err = loadRemovedMembers(store); err != nil {
		return c, err
	}
	err = store.Load(mvcc.BucketCluster, func(k, v []byte) error {
		var err error
		switch string(k) {
		case clusterVersionKey:
			c.version, err = semver.NewVersion(string(v))
		case downgradeKey:
			err = json.Unmarshal(v, &c.downgrade)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		return nil
	})
	if err != nil {
		return c, fmt.Errorf("load cluster: %w", err)
	}
	err = store.Load(mvcc.BucketMeta, func(k, v []byte) error {
		if string(k) == storageVersionKey {
			c.storage = string(v)
		}
		return nil
	})
	if err != nil {
		return c, fmt.Errorf("load storage version: %w", err)
	}
	return c, nil
}

// versionAtLeast is false while the version is not decided.
func (c *cluster) versionAtLeast(v majorMinor) bool {
	return c.version != nil && isAtLeast(c.version, v)
}

func isAtLeast(version *semver.Version, v majorMinor) bool {
	return version.Major > v.major || version.Major == v.major && version.Minor >= v.minor
}

func (c *cluster) sortedMembers() []Member {
	out := make([]Member, 0, len(c.members))
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		out = append(out, c.members[id])
	}
	return out
}

func (c *cluster) confState() ConfState {
	var s ConfState
	for _, member := range c.sortedMembers() {
		if member.IsLearner {
			s.Learners = append(s.Learners, member.ID)
		} else {
			s.Voters = append(s.Voters, member.ID)
		}
	}
	return s
}

// Encode returns the configuration's JSON in the bucket meta.
func (s ConfState) Encode() []byte {
	return encodeJSON(struct {
		Voters    []MemberID `json:"voters,omitempty"`
		Learners  []MemberID `json:"learners,omitempty"`
		AutoLeave bool       `json:"auto_leave"`
	}{Voters: s.Voters, Learners: s.Learners})
}

func (c *cluster) learnerCount() int {
	n := 0
	for _, member := range c.members {
		if member.IsLearner {
			n++
		}
	}
	return n
}

func (c *cluster) isLastVoter(id MemberID) bool {
	return !c.members[id].IsLearner && len(c.members)-c.learnerCount() == 1
}

// peerURLTaken reports whether another member has one of the member's URLs.
func (c *cluster) peerURLTaken(member Member) bool {
	for _, other := range c.members {
		if other.ID == member.ID {
			continue
		}
		for _, u := range member.PeerURLs {
			if slices.Contains(other.PeerURLs, u) {
				return true
			}
		}
	}
	return false
}

// setClusterVersion also sets the storage version, which names the format of
// the database and follows the cluster's; versions before 3.6 have no such key
// and leave it alone.
func (m *Machine) setClusterVersion(w *mvcc.Writer, text string, res *Result) {
	v, err := semver.NewVersion(text)
	if err != nil {
		res.Err = fmt.Errorf("%w: cluster version %q: %w", ErrMalformed, text, err)
		return
	}
	storage := m.cluster.storage
	if isAtLeast(v, storageKeyVersion) {
		storage = (&semver.Version{Major: v.Major, Minor: v.Minor}).String()
		w.Set(mvcc.BucketMeta, []byte(storageVersionKey), []byte(storage))
	}
	w.Set(mvcc.BucketCluster, []byte(clusterVersionKey), []byte(v.String()))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cluster.version, m.cluster.storage = v, storage
	res.ClusterVersion = v.String()
}

// setDowngrade starts a downgrade or, if not enabled, ends it.
func (m *Machine) setDowngrade(w *mvcc.Writer, r *membershippb.DowngradeInfoSetRequest, res *Result) {
	d := Downgrade{Enabled: r.Enabled}
	if r.Enabled {
		v, err := semver.NewVersion(r.Ver)
		if err != nil {
			res.Err = ErrDowngradeVersion
			return
		}
		d.TargetVersion = v.String()
	}
	w.Set(mvcc.BucketCluster, []byte(downgradeKey), encodeJSON(d))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cluster.downgrade = d
	res.Downgrade = &d
}

// ClusterVersion returns the version that all members understand, as X.Y.Z;
// "" while it is not decided.
func (m *Machine) ClusterVersion() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cluster.version == nil {
		return ""
	}
	return m.cluster.version.String()
}

// StorageVersion returns the version of the database's format, as X.Y.Z; ""
// while none is written.
func (m *Machine) StorageVersion() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cluster.storage
}

// Downgrade returns the state of the downgrade.
func (m *Machine) Downgrade() Downgrade {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cluster.downgrade
}
