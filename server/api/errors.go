package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/raft"
	"github.com/kvorum/kvorum/server/api/token"
	"github.com/kvorum/kvorum/server/state"
)

// Errors that the member itself gives. What a caller should do is in the
// comment behind each.
var (
	ErrTimeout              = errors.New("etcdserver: request timed out")                                              // outcome unknown: read before writing again
	ErrTimeoutLeaderFailure = errors.New("etcdserver: request timed out, possibly due to previous leader failure")     // outcome unknown
	ErrTimeoutConnection    = errors.New("etcdserver: request timed out, possibly due to connection lost")             // outcome unknown
	ErrTimeoutApply         = errors.New("etcdserver: request timed out, waiting for the applied index took too long") // ask again
	ErrTimeoutTransfer      = errors.New("etcdserver: request timed out, leader transfer took too long")               // ask again
	ErrStopped              = errors.New("etcdserver: server stopped")                                                 // use another endpoint
	ErrCanceled             = errors.New("etcdserver: request canceled")                                               // outcome unknown: the caller gave up
	ErrNoLeader             = errors.New("etcdserver: no leader")                                                      // wait for an election
	ErrNotLeader            = errors.New("etcdserver: not leader")                                                     // ask the leader
	ErrLeaderChanged        = errors.New("etcdserver: leader changed")                                                 // ask again
	ErrTooManyRequests      = errors.New("etcdserver: too many requests")                                              // slow down
	ErrRequestTooLarge      = errors.New("etcdserver: request is too large")                                           // send less; --max-request-bytes
	ErrUnhealthy            = errors.New("etcdserver: unhealthy cluster")                                              // heal the members first
	ErrNotEnoughStarted     = errors.New("etcdserver: re-configuration failed due to not enough started members")      // start members first
	ErrMemberURLs           = errors.New("etcdserver: given member URLs are invalid")                                  // mend the URLs
	ErrLearnerNotReady      = errors.New("etcdserver: can only promote a learner member which is in sync with leader") // wait until it caught up
	ErrBadTransferee        = errors.New("etcdserver: bad leader transferee")                                          // name a voter
	ErrNotPrimaryLessor     = errors.New("not a primary lessor")                                                       // ask again
	ErrLearnerRPC           = errors.New("etcdserver: rpc not supported for learner")                                  // use a voter
	ErrKeyEmpty             = errors.New("etcdserver: key is not provided")                                            // give a key
	ErrValueProvided        = errors.New("etcdserver: value is provided")                                              // leave the value out
	ErrLeaseProvided        = errors.New("etcdserver: lease is provided")                                              // leave the lease out
	ErrTooManyOps           = errors.New("etcdserver: too many operations in txn request")                             // --max-txn-ops
	ErrDuplicateKey         = errors.New("etcdserver: duplicate key given in txn request")                             // write each key once
	ErrOpUnset              = errors.New("etcdserver: key not found")                                                  // set one request in each operation
	ErrSortOption           = errors.New("etcdserver: invalid sort option")                                            // use a known order and target
	ErrWatchCanceled        = errors.New("etcdserver: watch canceled")                                                 // open the stream again
	ErrClusterVersion       = errors.New("etcdserver: cluster version not found during downgrade")                     // wait
	ErrClientVersion        = errors.New("etcdserver: invalid client api version")                                     // send UTF-8
	ErrStreamSort           = errors.New("RangeStream does not support custom sort orders")                            // use Range
	ErrStreamFilters        = errors.New("RangeStream does not support revision filters")                              // use Range
	ErrElectionNoLeader     = errors.New("election: no leader")                                                        // wait, with Observe
	ErrElectionNotLeader    = errors.New("election: not leader")                                                       // campaign again
	ErrElectionSession      = errors.New("election: session is expired")                                               // campaign with a lease that lives
	ErrMutexSession         = errors.New("mutex: session is expired")                                                  // lock with a lease that lives
	ErrLeaderField          = errors.New("\"leader\" field must be provided")                                          // say which leadership
	ErrDowngradeTarget      = errors.New("etcdserver: invalid downgrade target version")                               // go down one minor version at a time
	ErrDowngradeInProgress  = errors.New("etcdserver: cluster has a downgrade job in progress")                        // cancel it first
	ErrUnknownMethod        = errors.New("etcdserver: unknown method")                                                 // use a known action
	ErrV2Keys               = errors.New("etcdserver: keys that begin with \\x00v2 belong to the v2 API")              // use /v2/keys, or --unsafe-v2-prefix-writes
)

// row says how an error looks on the wire. An empty text means the error's own.
type row struct {
	err  error
	code codes.Code
	text string
}

// table is the one translation of errors to gRPC statuses. Codes and texts are
// etcd's, odd ones included: clients compare them.
func table() []row {
	return []row{
		{mvcc.ErrCompacted, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		{mvcc.ErrFutureRevision, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{mvcc.ErrKeyNotFound, codes.InvalidArgument, "etcdserver: key not found"},
		{mvcc.ErrLeaseNotFound, codes.NotFound, "etcdserver: requested lease not found"},
		{mvcc.ErrCorrupt, codes.DataLoss, state.ErrCorrupt.Error()},
		{ErrTimeout, codes.Unavailable, ""},
		{ErrTimeoutLeaderFailure, codes.Unavailable, ""},
		{ErrTimeoutConnection, codes.Unavailable, ""},
		{ErrTimeoutApply, codes.Unavailable, ""},
		{ErrTimeoutTransfer, codes.Unknown, ""},
		{ErrStopped, codes.Unavailable, ""},
		{raft.ErrStopped, codes.Unavailable, ErrStopped.Error()},
		{ErrCanceled, codes.Canceled, ""},
		{ErrNoLeader, codes.Unavailable, ""},
		{raft.ErrNoLeader, codes.Unavailable, ErrNoLeader.Error()},
		{ErrNotLeader, codes.FailedPrecondition, ""},
		{ErrLeaderChanged, codes.Unavailable, ""},
		{raft.ErrLeaderChanged, codes.Unavailable, ErrLeaderChanged.Error()},
		{ErrTooManyRequests, codes.Unknown, ""},
		{ErrRequestTooLarge, codes.InvalidArgument, ""},
		{ErrUnhealthy, codes.Unavailable, ""},
		{ErrNotEnoughStarted, codes.Unknown, ""},
		{ErrMemberURLs, codes.InvalidArgument, ""},
		{ErrLearnerNotReady, codes.FailedPrecondition, ""},
		{ErrBadTransferee, codes.FailedPrecondition, ""},
		{ErrNotPrimaryLessor, codes.Unknown, ""},
		{ErrLearnerRPC, codes.FailedPrecondition, ""},
		{ErrKeyEmpty, codes.InvalidArgument, ""},
		{ErrValueProvided, codes.InvalidArgument, ""},
		{ErrLeaseProvided, codes.InvalidArgument, ""},
		{ErrTooManyOps, codes.InvalidArgument, ""},
		{ErrDuplicateKey, codes.InvalidArgument, ""},
		{ErrOpUnset, codes.InvalidArgument, ""},
		{ErrSortOption, codes.InvalidArgument, ""},
		{state.ErrNoSpace, codes.ResourceExhausted, ""},
		{state.ErrCorrupt, codes.DataLoss, ""},
		{state.ErrLeaseNotFound, codes.NotFound, ""},
		{state.ErrLeaseExists, codes.FailedPrecondition, ""},
		{state.ErrLeaseTTLTooLarge, codes.OutOfRange, ""},
		{state.ErrMemberExists, codes.FailedPrecondition, ""},
		{state.ErrMemberNotFound, codes.NotFound, ""},
		{state.ErrMemberRemoved, codes.NotFound, state.ErrMemberNotFound.Error()},
		{state.ErrPeerURLExists, codes.FailedPrecondition, ""},
		{state.ErrMemberNotLearner, codes.FailedPrecondition, ""},
		{state.ErrTooManyLearners, codes.FailedPrecondition, ""},
		{state.ErrLastVoter, codes.Unknown, ""},
		{state.ErrUserEmpty, codes.InvalidArgument, ""},
		{state.ErrPermissionDenied, codes.PermissionDenied, ""},
		{state.ErrAuthOldRevision, codes.InvalidArgument, ""},
		{token.ErrInvalid, codes.Unauthenticated, ""},
		{token.ErrVerifyOnly, codes.Unknown, ""},
		{state.ErrRootUserNotExist, codes.FailedPrecondition, ""},
		{state.ErrRootRoleNotGranted, codes.FailedPrecondition, ""},
		{state.ErrUserExists, codes.FailedPrecondition, ""},
		{state.ErrUserNotFound, codes.FailedPrecondition, ""},
		{state.ErrRoleExists, codes.FailedPrecondition, ""},
		{state.ErrRoleNotFound, codes.FailedPrecondition, ""},
		{state.ErrRoleEmpty, codes.InvalidArgument, ""},
		{state.ErrRoleNotGranted, codes.FailedPrecondition, ""},
		{state.ErrPermissionNotGiven, codes.InvalidArgument, ""},
		{state.ErrPermissionNotGranted, codes.FailedPrecondition, ""},
		{state.ErrAuthFailed, codes.InvalidArgument, ""},
		{state.ErrNoPasswordUser, codes.Unknown, ""},
		{state.ErrAuthNotEnabled, codes.FailedPrecondition, ""},
		{state.ErrInvalidAuthMgmt, codes.InvalidArgument, ""},
		{state.ErrDowngradeVersion, codes.InvalidArgument, ""},
		{ErrElectionNoLeader, codes.Unknown, ""},
		{ErrElectionNotLeader, codes.Unknown, ""},
		{ErrElectionSession, codes.Unknown, ""},
		{ErrMutexSession, codes.Unknown, ""},
		{ErrLeaderField, codes.Unknown, ""},
		{ErrWatchCanceled, codes.Canceled, ""},
		{ErrClusterVersion, codes.FailedPrecondition, ""},
		{ErrClientVersion, codes.InvalidArgument, ""},
		{ErrStreamSort, codes.Unimplemented, ""},
		{ErrStreamFilters, codes.Unimplemented, ""},
		{ErrDowngradeTarget, codes.InvalidArgument, ""},
		{ErrDowngradeInProgress, codes.FailedPrecondition, ""},
		{ErrUnknownMethod, codes.Unknown, ""},
		{ErrV2Keys, codes.InvalidArgument, ""},
		{context.Canceled, codes.Canceled, ""},
		{context.DeadlineExceeded, codes.DeadlineExceeded, ""},
	}
}

// Errors translates errors into gRPC statuses. Make one with NewErrors.
type Errors struct {
	rows []row
}

// NewErrors builds the translation.
func NewErrors() *Errors { return &Errors{rows: table()} }

// Status is the gRPC status error that a client sees for err; nil stays nil
// and a status stays as it is. An error that is not in the table is Unknown
// with its own text.
func (e *Errors) Status(err error) error {
	if err == nil {
		return nil
	}
	for i := range e.rows {
		r := &e.rows[i]
		if errors.Is(err, r.err) {
			text := r.text
			if text == "" {
				text = r.err.Error()
			}
			return status.Error(r.code, text)
		}
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unknown, err.Error())
}
