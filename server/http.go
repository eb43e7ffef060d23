package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/api"
)

// healthTimeout bounds the read of a health check.
const healthTimeout = 5 * time.Second

// clientHandler serves HTTP on the client port; gateway may be nil.
func (s *Server) clientHandler(gateway http.Handler) http.Handler {
	mux := http.NewServeMux()
	s.probes(mux)
	mux.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) {
		if isMethod(w, r, http.MethodGet) {
			s.serveVersion(w, r)
		}
	})
	mux.HandleFunc("/debug/vars", func(w http.ResponseWriter, r *http.Request) {
		if isMethod(w, r, http.MethodGet) {
			serveVars(w, r)
		}
	})
	if s.cfg.debugs() {
		mux.HandleFunc("/debug/requests", serveRequests)
		mux.HandleFunc("/debug/events", serveEvents)
	}
	if s.cfg.EnablePprof || s.cfg.debugs() {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", serveCommandLine)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	if gateway != nil {
		mux.Handle("/v3/", gateway)
		mux.Handle("/v3beta/", gateway)
	}
	return s.access(s.v2Handler(mux))
}

// debugs tells whether the requests in flight are traced and shown, as they are
// at etcd's log level debug.
func (c *Config) debugs() bool { return c.LogLevel == "debug" }

// probes registers what a metrics listener serves too.
func (s *Server) probes(mux *http.ServeMux) {
	mux.Handle("/metrics", s.metrics.Handler())
	mux.HandleFunc("/health", s.serveHealth)
	s.probeSet(mux, "/livez", []probe{{"serializable_read", s.checkSerializable}})
	s.probeSet(mux, "/readyz", []probe{
		{"data_corruption", s.checkCorruption},
		{"serializable_read", s.checkSerializable},
		{"linearizable_read", s.checkLinearizable},
		{"non_learner", s.checkVoter},
	})
}

// serveHealth answers /health: alarms, the leader, and one read.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	if !isMethod(w, r, http.MethodGet) {
		return
	}
	query := r.URL.Query()
	reason := s.unhealthy(r.Context(), query["exclude"], query.Get("serializable") == "true")
	if reason != "" {
		s.metrics.HealthFailures.Inc()
		http.Error(w, fmt.Sprintf(`{"health":"false","reason":%q}`, reason), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	s.metrics.HealthSuccess.Inc()
	fmt.Fprint(w, `{"health":"true","reason":""}`)
}

func (s *Server) unhealthy(ctx context.Context, exclude []string, serializable bool) (reason string) {
	for _, a := range s.machine.Alarms(pb.AlarmType_NONE) {
		if !slices.Contains(exclude, a.Alarm.String()) {
			return "ALARM " + a.Alarm.String()
		}
	}
	if !serializable && s.node.Leader() == 0 {
		return "RAFT NO LEADER"
	}
	check := s.checkLinearizable
	if serializable {
		check = s.checkSerializable
	}
	if err := check(ctx); err != nil {
		return "RANGE ERROR:" + err.Error()
	}
	return ""
}

// probe is one named check of /livez or /readyz.
type probe struct {
	name  string
	check func(context.Context) error
}

func (s *Server) checkSerializable(context.Context) error {
	_, err := s.store.Range(&pb.RangeRequest{Key: []byte{0}, Limit: 1, Serializable: true})
	return err
}

func (s *Server) checkLinearizable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	err := s.ReadBarrier(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return api.ErrTimeout
	case err != nil:
		return err
	}
	return s.checkSerializable(ctx)
}

func (s *Server) checkCorruption(context.Context) error {
	for _, a := range s.machine.Alarms(pb.AlarmType_NONE) {
		if a.Alarm == pb.AlarmType_CORRUPT {
			return fmt.Errorf("alarm activated: %s", a.Alarm)
		}
	}
	return nil
}

func (s *Server) checkVoter(context.Context) error {
	if learner, _ := s.Role(); learner {
		return fmt.Errorf("member is a learner")
	}
	return nil
}

// probeSet serves path with all checks and path/<name> with one.
func (s *Server) probeSet(mux *http.ServeMux, path string, probes []probe) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { s.runProbes(w, r, path, probes) })
	for _, p := range probes {
		mux.HandleFunc(path+"/"+p.name, func(w http.ResponseWriter, r *http.Request) { s.runProbes(w, r, path, []probe{p}) })
	}
}

func (s *Server) runProbes(w http.ResponseWriter, r *http.Request, path string, probes []probe) {
	if !isMethod(w, r, http.MethodGet) {
		return
	}
	_, verbose := r.URL.Query()["verbose"]
	failed, lines := false, ""
	for _, p := range probes {
		if slices.Contains(r.URL.Query()["exclude"], p.name) {
			continue
		}
		err := p.check(r.Context())
		s.metrics.Checked(path[1:], p.name, err)
		if err != nil {
			failed = true
			lines += fmt.Sprintf("[-]%s failed: %v\n", p.name, err)
		} else {
			lines += fmt.Sprintf("[+]%s ok\n", p.name)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case failed:
		http.Error(w, lines, http.StatusServiceUnavailable)
	case verbose:
		fmt.Fprintf(w, "%sok\n", lines)
	default:
		fmt.Fprint(w, "ok\n")
	}
}
