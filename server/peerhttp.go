package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/internal/version"
	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/raft/peer"
	"github.com/kvorum/kvorum/server/api"
	"github.com/kvorum/kvorum/server/state"
)

// Bodies that members send each other are small.
const peerBodyBytesMax = 1 << 20

// peerMember is a member as /members shows it.
type peerMember struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// versions is the body of /version.
type versions struct {
	Server  string `json:"etcdserver"`
	Cluster string `json:"etcdcluster"`
	Storage string `json:"storage"`
}

// peerHandler serves the peer port: raft's own paths are the transport's, the
// rest is here.
func (s *Server) peerHandler() http.Handler {
	mux := http.NewServeMux()
	raft := s.transport.Handler()
	for _, path := range []string{"/raft", "/raft/"} {
		mux.Handle(path, raft)
	}
	mux.HandleFunc("GET /members", s.serveMembers)
	mux.HandleFunc("POST /members/promote/{id}", s.servePromote)
	mux.HandleFunc("GET /members/hashkv", s.serveHashKV)
	mux.HandleFunc("POST /leases", s.serveLeaseRenew)
	mux.HandleFunc("POST /leases/internal", s.serveLeaseTTL)
	mux.HandleFunc("GET /downgrade/enabled", s.serveDowngradeEnabled)
	mux.HandleFunc("GET /version", s.serveVersion)
	mux.HandleFunc("GET "+kvorumPath, s.serveKvorum)
	return mux
}

func (s *Server) clusterHeader(w http.ResponseWriter) {
	w.Header().Set("X-Etcd-Cluster-ID", strconv.FormatUint(s.cluster, 16))
}

func peerMembers(members []state.Member) []peerMember {
	out := make([]peerMember, len(members))
	for i, m := range members {
		out[i] = peerMember{uint64(m.ID), m.PeerURLs, m.IsLearner, m.Name, m.ClientURLs}
	}
	return out
}

// writeJSON answers with v and no newline behind it, as etcd does.
func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the reader has gone: nothing to tell it
}

func (s *Server) serveMembers(w http.ResponseWriter, r *http.Request) {
	s.clusterHeader(w)
	if r.URL.Query().Get("linearizable") == "true" {
		if err := s.ReadBarrier(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	writeJSON(w, peerMembers(s.machine.Members()))
}

func (s *Server) servePromote(w http.ResponseWriter, r *http.Request) {
	s.clusterHeader(w)
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		http.Error(w, fmt.Sprintf("member %s not found in cluster", r.PathValue("id")), http.StatusNotFound)
		return
	}
	switch err := s.promoteHere(r.Context(), id); {
	case err == nil:
		writeJSON(w, peerMembers(s.machine.Members()))
	case errors.Is(err, state.ErrMemberNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusPreconditionFailed)
	}
}

func (s *Server) serveHashKV(w http.ResponseWriter, r *http.Request) {
	s.clusterHeader(w)
	if id := r.Header.Get("X-Etcd-Cluster-ID"); id != "" && id != strconv.FormatUint(s.cluster, 16) {
		http.Error(w, "cluster ID mismatch", http.StatusPreconditionFailed)
		return
	}
	var ask struct {
		Revision int64 `json:"revision"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, peerBodyBytesMax)).Decode(&ask); err != nil {
		http.Error(w, "error unmarshalling request", http.StatusBadRequest)
		return
	}
	h, err := s.store.HashKV(mvcc.Revision(ask.Revision))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	type header struct {
		Revision int64 `json:"revision,omitempty"`
	}
	writeJSON(w, struct {
		Header          header `json:"header"`
		Hash            uint32 `json:"hash,omitempty"`
		CompactRevision int64  `json:"compact_revision,omitempty"`
		HashRevision    int64  `json:"hash_revision,omitempty"`
	}{header{int64(h.Revision)}, h.Hash, int64(h.CompactRevision), int64(h.HashRevision)})
}

// serveLeaseRenew is how a follower passes a keep-alive to the leader.
func (s *Server) serveLeaseRenew(w http.ResponseWriter, r *http.Request) {
	var ask pb.LeaseKeepAliveRequest
	if !s.readProto(w, r, ask.UnmarshalVT) {
		return
	}
	ttl, err := s.renewHere(r.Context(), ask.ID)
	if s.leaseError(w, err) {
		return
	}
	answer := pb.LeaseKeepAliveResponse{ID: ask.ID, TTL: ttl}
	writeProto(w, answer.MarshalVT)
}

func (s *Server) serveLeaseTTL(w http.ResponseWriter, r *http.Request) {
	var ask leaseTTLEnvelope
	if !s.readProto(w, r, ask.unmarshalRequest) {
		return
	}
	answer, err := s.timeToLiveHere(ask.request.ID, ask.request.Keys)
	if s.leaseError(w, err) {
		return
	}
	answer.Header = &pb.ResponseHeader{Revision: int64(s.store.Revision())}
	s.FillHeader(answer.Header)
	writeProto(w, leaseTTLEnvelope{response: answer}.marshalResponse)
}

func (s *Server) readProto(w http.ResponseWriter, r *http.Request, decode func([]byte) error) bool {
	s.clusterHeader(w)
	body, err := io.ReadAll(io.LimitReader(r.Body, peerBodyBytesMax))
	if err != nil {
		http.Error(w, "error reading body", http.StatusBadRequest)
		return false
	}
	if err := decode(body); err != nil {
		http.Error(w, "error unmarshalling request", http.StatusBadRequest)
		return false
	}
	return true
}

func writeProto(w http.ResponseWriter, encode func() ([]byte, error)) {
	body, err := encode()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/protobuf")
	_, _ = w.Write(body) // the reader has gone: nothing to tell it
}

func (s *Server) leaseError(w http.ResponseWriter, err error) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, state.ErrLeaseNotFound):
		http.Error(w, "lease not found", http.StatusNotFound)
	case errors.Is(err, api.ErrTimeoutApply):
		http.Error(w, err.Error(), http.StatusRequestTimeout)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	return true
}

func (s *Server) serveDowngradeEnabled(w http.ResponseWriter, r *http.Request) {
	s.clusterHeader(w)
	if err := s.ReadBarrier(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, s.machine.Downgrade().Enabled)
}

func (s *Server) serveVersion(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, s.versions())
}

func (s *Server) versions() versions {
	v := versions{Server: version.API, Cluster: s.machine.ClusterVersion(), Storage: s.machine.StorageVersion()}
	if v.Cluster == "" {
		v.Cluster = "not_decided"
	}
	if v.Storage == "" {
		v.Storage = "unknown"
	}
	return v
}

// isMethod answers 405 unless the request has the one allowed method.
func isMethod(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method {
		return true
	}
	w.Header().Set("Allow", strings.ToUpper(method))
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}

// peerRequest is a request for the peer client.
func peerRequest(ctx context.Context, method, peerURL, path string, body io.Reader) (*http.Request, error) {
	u, err := peer.RequestURL(peerURL, path)
	if err != nil {
		return nil, err
	}
	return http.NewRequestWithContext(ctx, method, u, body)
}

// getPeerJSON reads a small JSON answer of another member.
func (s *Server) getPeerJSON(ctx context.Context, peerURL, path string, into any) error {
	return askPeerJSON(ctx, s.peerClient, peerURL, path, into)
}

func askPeerJSON(ctx context.Context, client *http.Client, peerURL, path string, into any) error {
	r, err := peerRequest(ctx, http.MethodGet, peerURL, path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s answered %s", peerURL, path, answer.Status)
	}
	return json.NewDecoder(io.LimitReader(answer.Body, peerBodyBytesMax)).Decode(into)
}
