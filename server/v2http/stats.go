package v2http

import (
	"net/http"
	"strings"
	"time"
)

const statsPath = "/v2/stats"

// SelfStats is this member as /v2/stats/self shows it.
type SelfStats struct {
	Name                  string
	ID, Leader            uint64 // Leader 0: none is known
	Leading               bool
	Started, LeaderSince  time.Time
	ReceivedAppendEntries uint64
	SentAppendEntries     uint64
}

// FollowerStats is a follower as the leader sees it.
type FollowerStats struct {
	Latency       LatencyStats
	Fails, Passes uint64
}

// LatencyStats are round trips to a follower, in milliseconds.
type LatencyStats struct {
	Current           float64 `json:"current"`
	Average           float64 `json:"average"`
	StandardDeviation float64 `json:"standardDeviation"`
	Minimum           float64 `json:"minimum"`
	Maximum           float64 `json:"maximum"`
}

// JSON of /v2/stats/self and /v2/stats/leader.
type (
	jsonLeaderInfo struct {
		Leader    string    `json:"leader"`
		Uptime    string    `json:"uptime"`
		StartTime time.Time `json:"startTime"`
	}
	jsonSelf struct {
		Name                 string         `json:"name"`
		ID                   string         `json:"id"`
		State                string         `json:"state"`
		StartTime            time.Time      `json:"startTime"`
		LeaderInfo           jsonLeaderInfo `json:"leaderInfo"`
		RecvAppendRequestCnt uint64         `json:"recvAppendRequestCnt"`
		SendAppendRequestCnt uint64         `json:"sendAppendRequestCnt"`
	}
	jsonCounts struct {
		Fail    uint64 `json:"fail"`
		Success uint64 `json:"success"`
	}
	jsonFollower struct {
		Latency LatencyStats `json:"latency"`
		Counts  jsonCounts   `json:"counts"`
	}
	jsonLeader struct {
		Leader    string                  `json:"leader"`
		Followers map[string]jsonFollower `json:"followers"`
	}
)

// serveStats serves /v2/stats.
func (h *Handler) serveStats(w http.ResponseWriter, r *http.Request) {
	var serve func(http.ResponseWriter)
	switch strings.TrimPrefix(r.URL.Path, statsPath+"/") {
	case "self":
		serve = h.selfStats
	case "leader":
		serve = h.leaderStats
	case "store":
		serve = h.storeStats
	default:
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet {
		notAllowed(w, "GET")
		return
	}
	serve(w)
}

// writeStats answers with v and no newline.
func writeStats(w http.ResponseWriter, v any) {
	body := marshal(v)
	setJSON(w.Header())
	_, _ = w.Write(body) // the reader has gone: nothing to tell it
}

func (h *Handler) selfStats(w http.ResponseWriter) {
	s := h.member.SelfStats()
	out := jsonSelf{
		Name: s.Name, ID: hexID(s.ID), State: "StateFollower", StartTime: s.Started,
		RecvAppendRequestCnt: s.ReceivedAppendEntries, SendAppendRequestCnt: s.SentAppendEntries,
	}
	if s.Leading {
		out.State = "StateLeader"
	}
	if s.Leader != 0 {
		out.LeaderInfo = jsonLeaderInfo{hexID(s.Leader), time.Since(s.LeaderSince).String(), s.LeaderSince}
	}
	writeStats(w, out)
}

func (h *Handler) leaderStats(w http.ResponseWriter) {
	self := h.member.SelfStats()
	if !self.Leading {
		writeMessage(w, http.StatusForbidden, "not current leader")
		return
	}
	out := jsonLeader{Leader: hexID(self.ID), Followers: map[string]jsonFollower{}}
	for id, f := range h.member.FollowerStats() {
		out.Followers[hexID(id)] = jsonFollower{f.Latency, jsonCounts{f.Fails, f.Passes}}
	}
	writeStats(w, out)
}

// storeStats are the requests on keys of this member's clients.
func (h *Handler) storeStats(w http.ResponseWriter) {
	c := &h.count
	writeStats(w, struct {
		GetsSuccess             uint64 `json:"getsSuccess"`
		GetsFail                uint64 `json:"getsFail"`
		SetsSuccess             uint64 `json:"setsSuccess"`
		SetsFail                uint64 `json:"setsFail"`
		DeleteSuccess           uint64 `json:"deleteSuccess"`
		DeleteFail              uint64 `json:"deleteFail"`
		UpdateSuccess           uint64 `json:"updateSuccess"`
		UpdateFail              uint64 `json:"updateFail"`
		CreateSuccess           uint64 `json:"createSuccess"`
		CreateFail              uint64 `json:"createFail"`
		CompareAndSwapSuccess   uint64 `json:"compareAndSwapSuccess"`
		CompareAndSwapFail      uint64 `json:"compareAndSwapFail"`
		CompareAndDeleteSuccess uint64 `json:"compareAndDeleteSuccess"`
		CompareAndDeleteFail    uint64 `json:"compareAndDeleteFail"`
		ExpireCount             uint64 `json:"expireCount"`
		Watchers                uint64 `json:"watchers"`
	}{
		c.gets.success.Load() + c.lists.success.Load(), c.gets.fail.Load() + c.lists.fail.Load(), c.sets.success.Load(), c.sets.fail.Load(),
		c.deletes.success.Load(), c.deletes.fail.Load(), c.updates.success.Load(), c.updates.fail.Load(),
		c.creates.success.Load(), c.creates.fail.Load(), c.swaps.success.Load(), c.swaps.fail.Load(),
		c.compareDeletes.success.Load(), c.compareDeletes.fail.Load(), h.machine.V2Expired(), uint64(max(0, c.watchers.Load())),
	})
}
