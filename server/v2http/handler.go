package v2http

import (
	"context"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/mvcc"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
)

// Member is the running member behind the API; server.Server is one. All
// methods may be called from any goroutine.
type Member interface {
	// ProposeAs replicates a command in a caller's name and waits until this
	// member has applied it. The result's own error is returned as err.
	ProposeAs(ctx context.Context, c state.Caller, r *pb.InternalRaftRequest) (state.Result, error)
	// ReadBarrier waits until this member has applied everything that was
	// answered to anyone before the call.
	ReadBarrier(ctx context.Context) error
	// LogPosition is the newest committed index that this member knows, and its term.
	LogPosition() (index, term uint64)
	// ClusterID names the cluster.
	ClusterID() uint64
	// NextLeaseID draws an ID for the lease of a node.
	NextLeaseID() int64
	// CheckQuota fails when cost more bytes do not fit.
	CheckQuota(costBytes int) error
	// CheckV2 fails while some member of the cluster may not understand v2
	// commands.
	CheckV2(ctx context.Context) error
	// Leader is the member that leads as far as is known here, or 0.
	Leader() uint64
	// SelfStats and FollowerStats are for /v2/stats.
	SelfStats() SelfStats
	FollowerStats() map[uint64]FollowerStats

	AddMember(ctx context.Context, peerURLs []string, learner bool) (state.Member, error)
	RemoveMember(ctx context.Context, id uint64) error
	UpdateMember(ctx context.Context, id uint64, peerURLs []string) error
	// Stopping is closed when the member begins to stop.
	Stopping() <-chan struct{}
}

// Login gives the caller that a name and a password stand for.
type Login func(ctx context.Context, name, password string) (state.Caller, error)

// Hash gives what a command carries for a password.
type Hash func(ctx context.Context, password string) (string, error)

// Handler serves /v2/.
type Handler struct {
	member  Member
	store   *mvcc.Store
	machine *state.Machine
	login   Login
	hash    Hash
	cluster []string // its ID, ready to be put into headers
	count   counts
}

// Options are the parts that a Handler joins.
type Options struct {
	Member  Member
	Store   *mvcc.Store
	Machine *state.Machine
	Login   Login
	Hash    Hash
}

// New makes the handler.
func New(o Options) *Handler {
	return &Handler{
		member: o.Member, store: o.Store, machine: o.Machine, login: o.Login, hash: o.Hash,
		cluster: []string{strconv.FormatUint(o.Member.ClusterID(), 16)},
	}
}

const (
	keysPath      = "/v2/keys"
	clusterHeader = "X-Etcd-Cluster-Id"
)

// Serves reports whether a request is for this package.
func Serves(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v2/") }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if clean := cleanPath(r.URL.Path); clean != r.URL.Path {
		to := *r.URL
		to.Path, to.RawPath = clean, ""
		http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
		return
	}
	p := r.URL.Path
	switch {
	case p == keysPath || strings.HasPrefix(p, keysPath+"/"):
		h.serveKeys(w, r)
	case strings.HasPrefix(p, authPath+"/"):
		h.serveAuth(w, r)
	case p == membersPath || strings.HasPrefix(p, membersPath+"/"):
		h.serveMembers(w, r)
	case p == machinesPath:
		h.serveMachines(w, r)
	case strings.HasPrefix(p, statsPath+"/"):
		h.serveStats(w, r)
	default:
		http.NotFound(w, r)
	}
}

// cleanPath is a path without empty, . and .. elements. A slash at the end
// stays.
func cleanPath(p string) string {
	if !strings.Contains(p, "//") && !strings.Contains(p, "/.") {
		return p
	}
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// answerHeader sets what every answer of the API carries.
func (h *Handler) answerHeader(w http.ResponseWriter) http.Header {
	header := w.Header()
	header[clusterHeader] = h.cluster
	return header
}

// notAllowed answers a method that the path has not.
func notAllowed(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
}
