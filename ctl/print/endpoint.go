package print

import (
	"fmt"
	"math"
	"strings"

	"github.com/dustin/go-humanize"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// Health is what one endpoint did with a small read.
type Health struct {
	Endpoint string `json:"endpoint"`
	Health   bool   `json:"health"`
	Took     string `json:"took"`
	Error    string `json:"error,omitempty"`
}

// Status is the status of one endpoint.
type Status struct {
	Endpoint string             `json:"Endpoint"`
	Status   *pb.StatusResponse `json:"Status"`
}

// HashKV is the hash of one endpoint.
type HashKV struct {
	Endpoint string             `json:"Endpoint"`
	HashKV   *pb.HashKVResponse `json:"HashKV"`
}

// Health shows healths; in the simple form only of the healthy ones, as the
// others go to standard error.
func (p *Printer) Health(all []Health) error {
	return p.show(forms{
		simple: func() {
			for _, h := range all {
				if h.Error == "" {
					p.line("%s is healthy: successfully committed proposal: took = %s", h.Endpoint, h.Took)
				}
			}
		},
		fields: func() {
			for _, h := range all {
				p.field("Endpoint", quoted([]byte(h.Endpoint)))
				p.field("Health", h.Health)
				p.field("Took", h.Took)
				p.field("Error", h.Error)
				p.line("")
			}
		},
		table: func() {
			var rows [][]string
			for _, h := range all {
				rows = append(rows, []string{h.Endpoint, fmt.Sprint(h.Health), h.Took, h.Error})
			}
			p.tabular([]string{"ENDPOINT", "HEALTH", "TOOK", "ERROR"}, rows)
		},
		json: all,
	})
}

// Status shows the status of endpoints.
func (p *Printer) Status(all []Status) error {
	headings := []string{
		"ENDPOINT", "ID", "VERSION", "STORAGE VERSION", "DB SIZE", "IN USE", "PERCENTAGE NOT IN USE", "QUOTA",
		"IS LEADER", "IS LEARNER", "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "ERRORS",
		"DOWNGRADE TARGET VERSION", "DOWNGRADE ENABLED",
	}
	rows := make([][]string, len(all))
	for i := range all {
		rows[i] = statusRow(all[i])
	}
	return p.show(forms{
		simple: func() {
			for _, r := range rows {
				p.line("%s", strings.Join(r, ", "))
			}
		},
		fields: func() {
			for _, s := range all {
				p.fieldsStatus(s)
			}
		},
		table: func() { p.tabular(headings, rows) },
		json:  all,
	})
}

func statusRow(s Status) []string {
	r := s.Status
	free := 0.0
	if r.DbSize > 0 {
		free = float64(r.DbSize-r.DbSizeInUse) / float64(r.DbSize) * 100
	}
	size := func(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }
	return []string{
		s.Endpoint, fmt.Sprintf("%x", r.Header.GetMemberId()), r.Version, r.StorageVersion, size(r.DbSize),
		size(r.DbSizeInUse), fmt.Sprintf("%d%%", int(math.Round(free))), size(r.DbSizeQuota),
		fmt.Sprint(r.Leader == r.Header.GetMemberId()), fmt.Sprint(r.IsLearner), fmt.Sprint(r.RaftTerm),
		fmt.Sprint(r.RaftIndex), fmt.Sprint(r.RaftAppliedIndex), strings.Join(r.Errors, ", "),
		r.DowngradeInfo.GetTargetVersion(), fmt.Sprint(r.DowngradeInfo.GetEnabled()),
	}
}

func (p *Printer) fieldsStatus(s Status) {
	r := s.Status
	p.headerFields(r.Header)
	p.field("Version", quoted([]byte(r.Version)))
	p.field("StorageVersion", quoted([]byte(r.StorageVersion)))
	p.field("DBSize", r.DbSize)
	p.field("DBSizeInUse", r.DbSizeInUse)
	p.field("DBSizeQuota", r.DbSizeQuota)
	p.field("Leader", r.Leader)
	p.field("IsLearner", r.IsLearner)
	p.field("RaftIndex", r.RaftIndex)
	p.field("RaftTerm", r.RaftTerm)
	p.field("RaftAppliedIndex", r.RaftAppliedIndex)
	p.field("Errors", r.Errors)
	p.field("Endpoint", quoted([]byte(s.Endpoint)))
	p.field("DowngradeTargetVersion", quoted([]byte(r.DowngradeInfo.GetTargetVersion())))
	p.field("DowngradeEnabled", r.DowngradeInfo.GetEnabled())
	p.line("")
}

// HashKV shows the hashes of endpoints.
func (p *Printer) HashKV(all []HashKV) error {
	rows := make([][]string, len(all))
	for i, h := range all {
		rows[i] = []string{h.Endpoint, fmt.Sprint(h.HashKV.Hash), fmt.Sprint(h.HashKV.HashRevision)}
	}
	return p.show(forms{
		simple: func() {
			for _, r := range rows {
				p.line("%s", strings.Join(r, ", "))
			}
		},
		fields: func() {
			for _, h := range all {
				p.headerFields(h.HashKV.Header)
				p.field("Endpoint", quoted([]byte(h.Endpoint)))
				p.field("Hash", h.HashKV.Hash)
				p.field("HashRevision", h.HashKV.HashRevision)
				p.line("")
			}
		},
		table: func() { p.tabular([]string{"ENDPOINT", "HASH", "HASH REVISION"}, rows) },
		json:  all,
	})
}

// Alarms shows alarms.
func (p *Printer) Alarms(r *pb.AlarmResponse) error {
	return p.show(forms{
		simple: func() {
			for _, a := range r.Alarms {
				p.line("memberID:%d  alarm:%s", a.MemberID, a.Alarm)
			}
		},
		fields: func() {
			p.headerFields(r.Header)
			for _, a := range r.Alarms {
				p.field("MemberID", p.id(a.MemberID))
				p.field("AlarmType", a.Alarm)
				p.line("")
			}
		},
		json: r, proto: r,
	})
}

// FileStatus is what a snapshot file holds.
type FileStatus struct {
	Hash      uint32 `json:"hash"`
	Revision  int64  `json:"revision"`
	TotalKey  int    `json:"totalKey"`
	TotalSize int64  `json:"totalSize"`
	Version   string `json:"version"`
}

// FileStatus shows what a snapshot file holds.
func (p *Printer) FileStatus(s FileStatus) error {
	row := []string{
		fmt.Sprintf("%x", s.Hash), fmt.Sprint(s.Revision), fmt.Sprint(s.TotalKey),
		humanize.Bytes(uint64(max(s.TotalSize, 0))), s.Version,
	}
	return p.show(forms{
		simple: func() { p.line("%s", strings.Join(row, ", ")) },
		fields: func() {
			p.field("Hash", s.Hash)
			p.field("Revision", s.Revision)
			p.field("Keys", s.TotalKey)
			p.field("Size", s.TotalSize)
			p.field("Version", s.Version)
		},
		table: func() {
			p.tabular([]string{"HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"}, [][]string{row})
		},
		json: s,
	})
}

// FileHash is the hash of the keys in a snapshot file.
type FileHash struct {
	Hash            uint32 `json:"hash"`
	HashRevision    int64  `json:"hashRevision"`
	CompactRevision int64  `json:"compactRevision"`
}

// FileHash shows the hash of the keys in a snapshot file.
func (p *Printer) FileHash(h FileHash) error {
	row := []string{fmt.Sprint(h.Hash), fmt.Sprint(h.HashRevision), fmt.Sprint(h.CompactRevision)}
	return p.show(forms{
		simple: func() { p.line("%s", strings.Join(row, ", ")) },
		fields: func() {
			p.field("Hash", h.Hash)
			p.field("Hash revision", h.HashRevision)
			p.field("Compact revision", h.CompactRevision)
		},
		table: func() { p.tabular([]string{"HASH", "HASH REVISION", "COMPACT REVISION"}, [][]string{row}) },
		json:  h,
	})
}
