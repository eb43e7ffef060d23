package peer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// post sends what has no stream and probes the round trip, until the peer ends.
// One at a time: a member that does not answer a post answers no probe either.
func (p *peer) post() {
	probes := time.NewTicker(p.t.cfg.ProbeEvery)
	defer probes.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-probes.C:
			took, err := p.probe()
			p.logChange(p.health.posted(err == nil), err)
			if err == nil && p.t.cfg.Observer != nil {
				p.t.cfg.Observer.RoundTrip(p.id, took)
			}
		case <-p.poster.wake:
			msgs := p.posts.drain(p.poster)
			p.postAll(msgs)
			p.posts.recycle(msgs)
		}
	}
}

// postAll posts messages in order. After a failure the rest is stale and is
// dropped.
func (p *peer) postAll(msgs []*raftpb.Message) {
	for i, m := range msgs {
		err := p.postOne(m)
		if p.ctx.Err() != nil {
			return
		}
		p.logChange(p.health.posted(err == nil), err)
		if err != nil {
			p.t.log.Debug("post failed", "member", hexID(p.id), "type", m.GetType().String(), "error", err)
			p.lost(len(msgs) - i)
			return
		}
	}
}

func (p *peer) postOne(m *raftpb.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.t.cfg.WriteTimeout)
	defer cancel()
	at := p.urls.pick()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.url+pathRaft, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/protobuf")
	if err := p.exchange(req, at); err != nil {
		return err
	}
	p.count.sentBytes.Add(uint64(len(body)))
	return nil
}

// exchange does one post, which must be answered by 204, and moves on to the
// next URL if it is not.
func (p *peer) exchange(req *http.Request, at base) error {
	p.t.identify(req.Header)
	resp, err := p.t.posts.Do(req)
	if err != nil {
		p.urls.failed(at)
		return fmt.Errorf("post: %w", err)
	}
	defer resp.Body.Close()
	if err := p.answer(resp, http.StatusNoContent); err != nil {
		p.urls.failed(at)
		return fmt.Errorf("post: %w", err)
	}
	return nil
}

// probe measures one round trip.
func (p *peer) probe() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.t.cfg.ReadTimeout)
	defer cancel()
	at := p.urls.pick()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.url+pathProbing, nil)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	began := time.Now()
	resp, err := p.t.posts.Do(req)
	if err != nil {
		p.urls.failed(at)
		return 0, fmt.Errorf("probe: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)); err != nil {
		return 0, fmt.Errorf("read probe: %w", err)
	}
	took := time.Since(began)
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("probe: %s", resp.Status)
	}
	return took, nil
}

// answer judges a reply. One that says that we were removed is reported.
func (p *peer) answer(resp *http.Response, want int) error {
	if resp.StatusCode == want {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // a cut text still has its status
	reason := strings.TrimSpace(string(text))
	switch {
	case resp.StatusCode == http.StatusGone,
		resp.StatusCode == http.StatusForbidden && !strings.Contains(reason, "mismatch"):
		if p.t.reports.selfRemoved() {
			p.t.log.Error("the member has been permanently removed from the cluster", "told-by", hexID(p.id), "text", reason)
		}
		return fmt.Errorf("%s: %w", resp.Status, ErrRemoved)
	case resp.StatusCode == http.StatusPreconditionFailed && reason == ErrIncompatible.Error():
		return fmt.Errorf("%s: %w", resp.Status, ErrIncompatible)
	case resp.StatusCode == http.StatusPreconditionFailed && reason == ErrClusterMismatch.Error():
		return fmt.Errorf("%s: %w (theirs %s, ours %s)", resp.Status, ErrClusterMismatch,
			resp.Header.Get(headerCluster), hexID(p.t.cfg.Cluster))
	case resp.StatusCode == http.StatusPreconditionFailed && reason == ErrNotForUs.Error():
		return fmt.Errorf("%s: %w", resp.Status, ErrNotForUs)
	}
	return fmt.Errorf("%s: %q", resp.Status, reason)
}
