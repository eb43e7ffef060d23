package grpcproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// upstreamTimeout bounds a question to the members that no client waits for with
// a limit of its own.
const upstreamTimeout = 5 * time.Second

// probeListener serves /metrics and /health on an address of their own.
type probeListener struct {
	listener net.Listener
	http     *http.Server
}

func (l *probeListener) serve() error { return l.http.Serve(l.listener) }

func (p *Proxy) openProbes(ctx context.Context, secured *tls.Config) (*probeListener, error) {
	u, err := url.Parse(p.cfg.MetricsAddr)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "https" {
		l = tls.NewListener(l, secured)
	}
	mux := http.NewServeMux()
	p.addProbes(mux)
	return &probeListener{listener: l, http: newHTTP(mux)}, nil
}

// handler serves HTTP on the client address.
func (p *Proxy) handler() http.Handler {
	mux := http.NewServeMux()
	p.addProbes(mux)
	if p.cfg.EnablePprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			p.grpc.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (p *Proxy) addProbes(mux *http.ServeMux) {
	mux.HandleFunc("GET /metrics", p.serveMembersMetrics)
	mux.Handle("GET /proxy/metrics", p.metrics.handler())
	mux.HandleFunc("GET /health", p.serveHealth(false))
	mux.HandleFunc("GET /proxy/health", p.serveHealth(true))
}

// serveHealth answers whether a member can be read through this proxy: the
// cluster's newest state for /health, any for /proxy/health.
func (p *Proxy) serveHealth(local bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), upstreamTimeout)
		defer cancel()
		_, err := p.client.KV.Range(ctx, &pb.RangeRequest{Key: p.ns.key([]byte("health")), KeysOnly: true, Serializable: local})
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		// A cluster that asks for a user is well.
		if code := status.Code(err); err == nil || code == codes.PermissionDenied || code == codes.InvalidArgument {
			fmt.Fprint(w, `{"health":"true","reason":""}`)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "{\"health\":\"false\",\"reason\":%q}\n", "RANGE ERROR:"+client.Detail(err).Error())
	}
}

// serveMembersMetrics passes on the metrics of the first member that answers.
func (p *Proxy) serveMembersMetrics(w http.ResponseWriter, r *http.Request) {
	var failed error
	for _, endpoint := range p.client.Endpoints() {
		answer, err := p.getMetrics(r.Context(), endpoint)
		if err != nil {
			failed = err
			continue
		}
		defer answer.Body.Close()
		w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		_, _ = io.Copy(w, answer.Body)
		return
	}
	http.Error(w, fmt.Sprintf("no member gave its metrics: %v", failed), http.StatusServiceUnavailable)
}

func (p *Proxy) getMetrics(ctx context.Context, endpoint string) (*http.Response, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
		if !p.cfg.ServerTLS.none() {
			endpoint = "https://" + strings.TrimPrefix(endpoint, "http://")
		}
	}
	if strings.HasPrefix(endpoint, "unix") {
		return nil, fmt.Errorf("%s is a socket file", endpoint)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := p.upstream.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("%s answered %s", endpoint, answer.Status)
	}
	return answer, nil
}

// none tells that nothing asks for TLS but, maybe, an endpoint's own scheme.
func (t *ServerTLS) none() bool { return t.CertFile == "" && t.CAFile == "" && !t.SkipVerify }
