package server

import (
	"context"
	"errors"
	"net/http"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/state"
	"github.com/kvorum/kvorum/server/v2http"
)

// v2Member is this member as the v2 API needs it.
type v2Member struct{ *Server }

// makeV2 makes the v2 API, if it is on.
func (s *Server) makeV2() {
	if !s.cfg.EnableV2 {
		return
	}
	s.v2 = v2http.New(v2http.Options{Member: v2Member{s}, Store: s.store, Machine: s.machine, Login: s.services.Login, Hash: s.services.HashPassword})
	s.metrics.Register(v2Collector{s.v2})
}

// v2Direct serves plain requests on keys past net/http; nil if something is on
// that only sees what comes by net/http.
func (s *Server) v2Direct() *v2http.Direct {
	if s.v2 == nil || s.audit != nil || !allowed(s.cfg.HostWhitelist, allowAll) || !allowed(s.cfg.CORS, allowAll) {
		return nil
	}
	header := http.Header{}
	s.allowOrigin(header, "")
	return s.v2.Direct(header)
}

// v2Handler serves /v2/ and passes on what is not its own.
func (s *Server) v2Handler(next http.Handler) http.Handler {
	if s.v2 == nil {
		return next
	}
	var v2 http.Handler = s.v2
	if s.audit != nil {
		v2 = s.audit.http(v2)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch _, _, named := r.BasicAuth(); {
		case !v2http.Serves(r):
			next.ServeHTTP(w, r)
		case !named && s.certificateIsALogin(r):
			refuseCertificate(w)
		default:
			v2.ServeHTTP(w, r)
		}
	})
}

// ProposeAs implements v2http.Member.
func (m v2Member) ProposeAs(ctx context.Context, c state.Caller, r *pb.InternalRaftRequest) (state.Result, error) {
	if m.learner.Load() {
		return state.Result{}, api.ErrLearnerRPC
	}
	if m.admission.refuses(ctx) {
		return state.Result{}, v2http.ErrTooManyRequests
	}
	m.admission.underWay.Add(1)
	defer m.admission.end()
	if c != (state.Caller{}) {
		ctx = api.WithCaller(ctx, c)
	}
	result, err := m.Propose(ctx, r)
	if errors.Is(err, api.ErrTooManyRequests) {
		err = v2http.ErrTooManyRequests
	}
	return result, err
}

// LogPosition implements v2http.Member.
func (m v2Member) LogPosition() (index, term uint64) {
	status := m.node.Status()
	return uint64(status.Commit), uint64(status.Term)
}

// ClusterID implements v2http.Member.
func (m v2Member) ClusterID() uint64 { return m.cluster }
