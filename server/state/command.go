package state

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kvorum/kvorum/internal/nesting"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// fieldNumber is the number of an InternalRaftRequest field. The number of the
// one command field that is set is the kind of the command.
type fieldNumber = protowire.Number

const (
	fieldNone                     fieldNumber = 0
	fieldID                       fieldNumber = 1
	fieldRange                    fieldNumber = 3
	fieldPut                      fieldNumber = 4
	fieldDeleteRange              fieldNumber = 5
	fieldTxn                      fieldNumber = 6
	fieldCompaction               fieldNumber = 7
	fieldLeaseGrant               fieldNumber = 8
	fieldLeaseRevoke              fieldNumber = 9
	fieldAlarm                    fieldNumber = 10
	fieldLeaseCheckpoint          fieldNumber = 11
	fieldHeader                   fieldNumber = 100
	fieldAuthEnable               fieldNumber = 1000
	fieldAuthDisable              fieldNumber = 1011
	fieldAuthenticate             fieldNumber = 1012
	fieldAuthStatus               fieldNumber = 1013
	fieldAuthUserAdd              fieldNumber = 1100
	fieldAuthUserDelete           fieldNumber = 1101
	fieldAuthUserGet              fieldNumber = 1102
	fieldAuthUserChangePassword   fieldNumber = 1103
	fieldAuthUserGrantRole        fieldNumber = 1104
	fieldAuthUserRevokeRole       fieldNumber = 1105
	fieldAuthUserList             fieldNumber = 1106
	fieldAuthRoleList             fieldNumber = 1107
	fieldAuthRoleAdd              fieldNumber = 1200
	fieldAuthRoleDelete           fieldNumber = 1201
	fieldAuthRoleGet              fieldNumber = 1202
	fieldAuthRoleGrantPermission  fieldNumber = 1203
	fieldAuthRoleRevokePermission fieldNumber = 1204
	fieldClusterVersionSet        fieldNumber = 1300
	fieldClusterMemberAttrSet     fieldNumber = 1301
	fieldDowngradeInfoSet         fieldNumber = 1302
	fieldDowngradeVersionTest     fieldNumber = 9900
	fieldV2                       fieldNumber = 10000
	fieldV2Auth                   fieldNumber = 10001
)

// opUnknown is the label of the kinds that have none of their own.
const opUnknown = "unknown"

// opOf names a kind of command as the metrics do.
func opOf(field fieldNumber) string {
	switch field {
	case fieldPut:
		return "Put"
	case fieldTxn:
		return "Txn"
	case fieldDeleteRange:
		return "DeleteRange"
	case fieldCompaction:
		return "Compaction"
	case fieldLeaseGrant:
		return "LeaseGrant"
	case fieldLeaseRevoke:
		return "LeaseRevoke"
	case fieldAlarm:
		return "Alarm"
	case fieldClusterVersionSet:
		return "ClusterVersionSet"
	case fieldClusterMemberAttrSet:
		return "ClusterMemberAttrSet"
	case fieldDowngradeInfoSet:
		return "DowngradeInfoSet"
	case fieldV2:
		return "V2"
	case fieldV2Auth:
		return "V2Auth"
	}
	return authOpOf(field)
}

// authOpOf is the part of opOf's switch that concerns users and roles.
func authOpOf(field fieldNumber) string {
	switch field {
	case fieldAuthEnable:
		return "AuthEnable"
	case fieldAuthDisable:
		return "AuthDisable"
	case fieldAuthenticate:
		return "Authenticate"
	case fieldAuthUserAdd:
		return "AuthUserAdd"
	case fieldAuthUserDelete:
		return "AuthUserDelete"
	case fieldAuthUserGet:
		return "AuthUserGet"
	case fieldAuthUserChangePassword:
		return "AuthUserChangePassword"
	case fieldAuthUserGrantRole:
		return "AuthUserGrantRole"
	case fieldAuthUserRevokeRole:
		return "AuthUserRevokeRole"
	case fieldAuthUserList:
		return "AuthUserList"
	case fieldAuthRoleList:
		return "AuthRoleList"
	case fieldAuthRoleAdd:
		return "AuthRoleAdd"
	case fieldAuthRoleDelete:
		return "AuthRoleDelete"
	case fieldAuthRoleGet:
		return "AuthRoleGet"
	case fieldAuthRoleGrantPermission:
		return "AuthRoleGrantPermission"
	case fieldAuthRoleRevokePermission:
		return "AuthRoleRevokePermission"
	}
	return opUnknown
}

// isCommand reports whether a field of this number is a command this machine
// knows.
func isCommand(n fieldNumber) bool {
	switch n {
	case fieldRange, fieldLeaseCheckpoint, fieldAuthStatus, fieldDowngradeVersionTest:
		return true
	}
	return opOf(n) != opUnknown
}

// decoder decodes commands, reusing the messages of the hottest ones.
type decoder struct {
	request pb.InternalRaftRequest
	header  pb.RequestHeader
	put     pb.PutRequest
	v2      pb.V2Request
}

// decode returns the kind and the content of a command. The content is valid
// until the next decode. Keys, values and the user name of the commands on keys
// alias data; all other commands, whose strings the machine keeps for long,
// have copies.
func (d *decoder) decode(data []byte) (fieldNumber, *pb.InternalRaftRequest, error) {
	o, err := scan(data)
	if err != nil {
		return fieldNone, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if o.command == fieldNone {
		return fieldNone, nil, ErrUnknownCommand
	}
	r := d.reset(o)
	switch o.command {
	case fieldTxn:
		err = decodeTxn(r, o, data)
	case fieldPut, fieldDeleteRange, fieldRange, fieldV2:
		err = r.UnmarshalVTUnsafe(data)
	default:
		err = r.UnmarshalVT(data)
	}
	if err != nil {
		// The protobuf library, with which an etcd member applies the same entry, ignores a known field of another type.
		r = &pb.InternalRaftRequest{}
		err = proto.Unmarshal(data, r)
		if m := r.ProtoReflect(); err == nil && !m.Has(m.Descriptor().Fields().ByNumber(o.command)) {
			err = errWireFormat // the command itself is not a message
		}
	}
	if err != nil {
		return fieldNone, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return o.command, r, nil
}

// decodeTxn leaves what is nested deep to the protobuf library, which has a bound.
func decodeTxn(r *pb.InternalRaftRequest, o outline, data []byte) error {
	if o.deep {
		return errDeep
	}
	return r.UnmarshalVTUnsafe(data)
}

// reset empties the reused messages and hangs those that the data will fill
// into the request, which spares the allocations of decoding a put.
func (d *decoder) reset(o outline) *pb.InternalRaftRequest {
	d.request = pb.InternalRaftRequest{}
	if o.header {
		d.header = pb.RequestHeader{}
		d.request.Header = &d.header
	}
	switch o.command {
	case fieldPut:
		d.put = pb.PutRequest{}
		d.request.Put = &d.put
	case fieldV2:
		d.v2 = pb.V2Request{}
		d.request.V2 = &d.v2
	}
	return &d.request
}

// outline says which top-level fields the data of a command has.
type outline struct {
	command fieldNumber // fieldNone: none that this machine knows
	header  bool
	deep    bool // a transaction within many others
}

var (
	errTwoCommands = errors.New("more than one command")
	errWireFormat  = errors.New("bad wire format")
	errDeep        = errors.New("nested too deep for the generated code")
)

// scan finds the outline of a command without decoding what is in it. Two
// commands in one entry are an error, as nobody could say which was checked and
// which executed. Fields of newer programs are passed over.
func scan(data []byte) (outline, error) {
	var o outline
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return o, errWireFormat
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			return o, errWireFormat
		}
		if number == fieldTxn && kind == protowire.BytesType {
			txn, _ := protowire.ConsumeBytes(data[n:])
			o.deep = o.deep || !nesting.IsShallow(txn)
		}
		data = data[n+size:]
		switch {
		case number == fieldHeader:
			o.header = true
		case number == o.command || !isCommand(number):
		case o.command != fieldNone:
			return o, errTwoCommands
		default:
			o.command = number
		}
	}
	return o, nil
}
