package state

import "errors"

// What a command or a permission check can be refused for. The texts are those
// that clients match on, byte for byte; the api adds the gRPC code. Errors of
// the keys themselves (compacted, future revision, key not found) are mvcc's
// and pass through unchanged.
var (
	// ErrNoSpace: a NOSPACE alarm is active. Compact, defragment, disarm.
	ErrNoSpace = errors.New("etcdserver: mvcc: database space exceeded")
	// ErrCorrupt: a CORRUPT alarm is active. Find the damaged member first.
	ErrCorrupt = errors.New("etcdserver: corrupt cluster")

	// ErrLeaseNotFound: the lease has expired, was revoked or never was.
	ErrLeaseNotFound = errors.New("etcdserver: requested lease not found")
	// ErrLeaseExists: the chosen lease id is in use.
	ErrLeaseExists = errors.New("etcdserver: lease already exists")
	// ErrLeaseTTLTooLarge: the TTL is above LeaseTTLMax.
	ErrLeaseTTLTooLarge = errors.New("etcdserver: too large lease TTL")

	// ErrMemberExists: a member with this id is already there.
	ErrMemberExists = errors.New("etcdserver: member ID already exist")
	// ErrMemberNotFound: no member has this id.
	ErrMemberNotFound = errors.New("etcdserver: member not found")
	// ErrMemberRemoved: the id belonged to a removed member; ids never return.
	// Clients are told ErrMemberNotFound.
	ErrMemberRemoved = errors.New("membership: ID removed")
	// ErrPeerURLExists: another member has one of these peer URLs.
	ErrPeerURLExists = errors.New("etcdserver: Peer URLs already exists")
	// ErrMemberNotLearner: only a learner can be promoted.
	ErrMemberNotLearner = errors.New("etcdserver: can only promote a learner member")
	// ErrTooManyLearners: promote or remove a learner first.
	ErrTooManyLearners = errors.New("etcdserver: too many learner members in cluster")
	// ErrLastVoter: the change would leave the cluster without a voter.
	ErrLastVoter = errors.New("etcdserver: re-configuration failed due to not enough started members")

	// ErrRootUserNotExist: create the user root before enabling auth.
	ErrRootUserNotExist = errors.New("etcdserver: root user does not exist")
	// ErrRootRoleNotGranted: grant the role root to the user root first.
	ErrRootRoleNotGranted = errors.New("etcdserver: root user does not have root role")
	// ErrUserExists: choose another name.
	ErrUserExists = errors.New("etcdserver: user name already exists")
	// ErrUserEmpty: a user without a name, or a request without credentials.
	ErrUserEmpty = errors.New("etcdserver: user name is empty")
	// ErrUserNotFound: no such user.
	ErrUserNotFound = errors.New("etcdserver: user name not found")
	// ErrRoleExists: choose another name.
	ErrRoleExists = errors.New("etcdserver: role name already exists")
	// ErrRoleNotFound: no such role.
	ErrRoleNotFound = errors.New("etcdserver: role name not found")
	// ErrRoleEmpty: a role needs a name.
	ErrRoleEmpty = errors.New("etcdserver: role name is empty")
	// ErrRoleNotGranted: the user does not hold the role.
	ErrRoleNotGranted = errors.New("etcdserver: role is not granted to the user")
	// ErrPermissionNotGiven: a grant without a permission.
	ErrPermissionNotGiven = errors.New("etcdserver: permission not given")
	// ErrPermissionNotGranted: the role has no permission on exactly this range.
	ErrPermissionNotGranted = errors.New("etcdserver: permission is not granted to the role")
	// ErrPermissionDenied: the user may not do this.
	ErrPermissionDenied = errors.New("etcdserver: permission denied")
	// ErrAuthFailed: unknown user, or (told by the caller) a wrong password.
	ErrAuthFailed = errors.New("etcdserver: authentication failed, invalid user ID or password")
	// ErrNoPasswordUser: the user can only be known by its certificate.
	ErrNoPasswordUser = errors.New("auth: authentication failed, password was given for no password user")
	// ErrAuthNotEnabled: there is nothing to log in to.
	ErrAuthNotEnabled = errors.New("etcdserver: authentication is not enabled")
	// ErrInvalidAuthMgmt: the change would lock out root, or the range is void.
	ErrInvalidAuthMgmt = errors.New("etcdserver: invalid auth management")
	// ErrAuthOldRevision: users or roles changed since; authenticate again.
	ErrAuthOldRevision = errors.New("etcdserver: revision of auth store is old")

	// ErrDowngradeVersion: not X.Y or X.Y.Z.
	ErrDowngradeVersion = errors.New("etcdserver: wrong downgrade target version format")

	// ErrMalformed: the entry's bytes are no command that this machine can
	// have been meant to apply. Worth a log line: the log holds what no healthy
	// member proposes.
	ErrMalformed = errors.New("malformed log entry")
	// ErrUnknownCommand: the entry holds a command of a newer program. Worth a
	// log line: members of different versions may now differ.
	ErrUnknownCommand = errors.New("unknown command in log entry")
)
