package client

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is an answer whose text the protocol fixes. Compare with errors.Is.
type Error struct {
	Code codes.Code
	Text string
}

// Error is the text as the member said it.
func (e *Error) Error() string { return e.Text }

// GRPCStatus lets status.Code and status.FromError see through the type.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Text) }

// The errors that programs act on. A text that is not here but starts with
// "etcdserver: " still comes back as an *Error.
var (
	// ErrCompacted: the revision is gone. Read again at the current one.
	ErrCompacted = &Error{codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"}
	// ErrFutureRevision: the revision does not exist yet.
	ErrFutureRevision = &Error{codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"}
	// ErrKeyNotFound: an option of Put needs a key that exists.
	ErrKeyNotFound = &Error{codes.InvalidArgument, "etcdserver: key not found"}
	// ErrEmptyKey: give a key.
	ErrEmptyKey = &Error{codes.InvalidArgument, "etcdserver: key is not provided"}
	// ErrDuplicateKey: a transaction writes a key twice.
	ErrDuplicateKey = &Error{codes.InvalidArgument, "etcdserver: duplicate key given in txn request"}
	// ErrTooManyOps: split the transaction.
	ErrTooManyOps = &Error{codes.InvalidArgument, "etcdserver: too many operations in txn request"}
	// ErrTooLarge: split the value.
	ErrTooLarge = &Error{codes.InvalidArgument, "etcdserver: request is too large"}
	// ErrNoSpace: compact, defragment, then disarm the alarm.
	ErrNoSpace = &Error{codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded"}
	// ErrTooManyRequests: slow down.
	ErrTooManyRequests = &Error{codes.ResourceExhausted, "etcdserver: too many requests"}
	// ErrLeaseNotFound: the lease expired or never was. Grant a new one.
	ErrLeaseNotFound = &Error{codes.NotFound, "etcdserver: requested lease not found"}
	// ErrLeaseExists: the chosen lease id is in use.
	ErrLeaseExists = &Error{codes.FailedPrecondition, "etcdserver: lease already exists"}
	// ErrLeaseTTLTooLarge: at most 9,000,000,000 seconds.
	ErrLeaseTTLTooLarge = &Error{codes.OutOfRange, "etcdserver: too large lease TTL"}
	// ErrMemberNotFound: list the members.
	ErrMemberNotFound = &Error{codes.NotFound, "etcdserver: member not found"}
	// ErrUnhealthyCluster: the change would put the quorum at risk. Wait.
	ErrUnhealthyCluster = &Error{codes.Unavailable, "etcdserver: unhealthy cluster"}
	// ErrNotEnoughStarted: start the members that are down first.
	ErrNotEnoughStarted = &Error{codes.FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members"}
	// ErrLearnerNotReady: the learner has not caught up. Wait.
	ErrLearnerNotReady = &Error{codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader"}
	// ErrMemberNotLearner: the member votes already.
	ErrMemberNotLearner = &Error{codes.FailedPrecondition, "etcdserver: can only promote a learner member"}
	// ErrLearner: this member is a learner. Ask another one.
	ErrLearner = &Error{codes.FailedPrecondition, "etcdserver: rpc not supported for learner"}
	// ErrNoLeader: the member sees no leader.
	ErrNoLeader = &Error{codes.Unavailable, "etcdserver: no leader"}
	// ErrNotLeader: ask the leader.
	ErrNotLeader = &Error{codes.FailedPrecondition, "etcdserver: not leader"}
	// ErrLeaderChanged: read again.
	ErrLeaderChanged = &Error{codes.Unavailable, "etcdserver: leader changed"}
	// ErrStopped: the member is going down.
	ErrStopped = &Error{codes.Unavailable, "etcdserver: server stopped"}
	// ErrTimeout: unknown outcome.
	ErrTimeout = &Error{codes.Unavailable, "etcdserver: request timed out"}
	// ErrTimeoutLeader: unknown outcome, the leader failed.
	ErrTimeoutLeader = &Error{codes.Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"}
	// ErrTimeoutConnection: unknown outcome, the members lost each other.
	ErrTimeoutConnection = &Error{codes.Unavailable, "etcdserver: request timed out, possibly due to connection lost"}
	// ErrCorrupt: a member found that the members differ.
	ErrCorrupt = &Error{codes.DataLoss, "etcdserver: corrupt cluster"}
	// ErrAuthNotEnabled: no user is needed.
	ErrAuthNotEnabled = &Error{codes.FailedPrecondition, "etcdserver: authentication is not enabled"}
	// ErrAuthFailed: unknown user or wrong password.
	ErrAuthFailed = &Error{codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"}
	// ErrUserEmpty: the cluster wants a user.
	ErrUserEmpty = &Error{codes.InvalidArgument, "etcdserver: user name is empty"}
	// ErrInvalidToken: the token expired; the client gets a new one by itself
	// when it has a password.
	ErrInvalidToken = &Error{codes.Unauthenticated, "etcdserver: invalid auth token"}
	// ErrOldAuthRevision: as ErrInvalidToken.
	ErrOldAuthRevision = &Error{codes.InvalidArgument, "etcdserver: revision of auth store is old"}
	// ErrPermissionDenied: the user may not do this.
	ErrPermissionDenied = &Error{codes.PermissionDenied, "etcdserver: permission denied"}
	// ErrRootRoleMissing: grant role root to user root first.
	ErrRootRoleMissing = &Error{codes.FailedPrecondition, "etcdserver: root user does not have root role"}

	// ErrSessionExpired: the lease of a lock or an election was lost.
	ErrSessionExpired = errors.New("mutex: session is expired")
	// ErrLocked: TryLock found an owner.
	ErrLocked = errors.New("mutex: locked by another session")
	// ErrNotElected: Proclaim or Resign by one who does not lead.
	ErrNotElected = errors.New("election: not leader")
	// ErrNobodyLeads: an election without a leader.
	ErrNobodyLeads = errors.New("election: no leader")
	// ErrClosed: the client or the watcher was closed.
	ErrClosed = errors.New("client: closed")
)

var known = func() map[string]*Error {
	m := map[string]*Error{}
	for _, e := range []*Error{
		ErrCompacted, ErrFutureRevision, ErrKeyNotFound, ErrEmptyKey, ErrDuplicateKey, ErrTooManyOps,
		ErrTooLarge, ErrNoSpace, ErrTooManyRequests, ErrLeaseNotFound, ErrLeaseExists, ErrLeaseTTLTooLarge,
		ErrMemberNotFound, ErrUnhealthyCluster, ErrNotEnoughStarted, ErrLearnerNotReady, ErrMemberNotLearner, ErrLearner, ErrNoLeader, ErrNotLeader,
		ErrLeaderChanged, ErrStopped, ErrTimeout, ErrTimeoutLeader, ErrTimeoutConnection, ErrCorrupt,
		ErrAuthNotEnabled, ErrAuthFailed, ErrUserEmpty, ErrInvalidToken, ErrOldAuthRevision,
		ErrPermissionDenied, ErrRootRoleMissing,
	} {
		m[e.Text] = e
	}
	return m
}()

// typed turns what a call returned into an error of this package: the
// context's own error when that ended the call, a sentinel for a known text,
// an *Error for other texts of the server, and else err itself.
func typed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	if e := known[s.Message()]; e != nil {
		return e
	}
	if isServerText(s.Message()) {
		return &Error{s.Code(), s.Message()}
	}
	switch s.Code() {
	case codes.DeadlineExceeded, codes.Canceled:
		if cause := ctx.Err(); cause != nil {
			return &ctxError{cause: cause, detail: err}
		}
		if s.Code() == codes.DeadlineExceeded {
			return &ctxError{cause: context.DeadlineExceeded, detail: err}
		}
	}
	return err
}

// fromText is the error for a reason that came as text, as in a canceled
// watch, where the server may have written a whole gRPC error into it.
func fromText(text string) error {
	if strings.HasPrefix(text, "rpc error: code = ") {
		if _, desc, _ := strings.Cut(text, " desc = "); known[desc] != nil {
			return known[desc]
		}
	}
	if e := known[text]; e != nil {
		return e
	}
	return &Error{codes.Unknown, text}
}

func isServerText(text string) bool {
	return strings.HasPrefix(text, "etcdserver: ")
}

// ctxError is a call that ended with its context. It keeps what the
// connection said last, which is usually why it took so long.
type ctxError struct {
	cause  error
	detail error
}

func (e *ctxError) Error() string              { return e.cause.Error() }
func (e *ctxError) Unwrap() error              { return e.cause }
func (e *ctxError) GRPCStatus() *status.Status { return status.FromContextError(e.cause) }

// Detail is the last thing known about why a call ran into its deadline, such
// as a refused connection. It is err itself when there is nothing more to say.
func Detail(err error) error {
	if e := (*ctxError)(nil); errors.As(err, &e) {
		return e.detail
	}
	return err
}
