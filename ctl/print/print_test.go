package print

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/proto/authpb"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files instead of comparing with them")

func header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 0xbabc9795b64f03e3, MemberId: 0x628170c800dbcee, Revision: 44, RaftTerm: 2}
}

func clusterHeader() *pb.ResponseHeader { h := header(); h.Revision = 0; return h }

func pair(key, value string) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: 3, ModRevision: 9, Version: 2, Lease: 0x323}
}

// answers are one of each kind, with every field that has a form of its own.
func answers() map[string]func(p *Printer) error {
	members := []*pb.Member{
		{ID: 0x628170c800dbcee, Name: "o1", PeerURLs: []string{"http://a:1"}, ClientURLs: []string{"http://a:2", "http://b:2"}},
		{ID: 0x12, PeerURLs: []string{"http://c:1"}, IsLearner: true},
	}
	alarm := &pb.AlarmResponse{Header: header(), Alarms: []*pb.AlarmMember{{MemberID: 5, Alarm: pb.AlarmType_NOSPACE}}}
	put := &pb.PutResponse{Header: header(), PrevKv: pair("foo", "bar\xff")}
	get := &pb.RangeResponse{Header: header(), Kvs: []*mvccpb.KeyValue{pair("foo", "bar"), pair("b\x00n", "\x01\xff")}, More: true, Count: 5}
	del := &pb.DeleteRangeResponse{Header: header(), Deleted: 1, PrevKvs: []*mvccpb.KeyValue{pair("foo", "bar")}}
	inner := &pb.ResponseHeader{Revision: 44}
	txn := &pb.TxnResponse{Header: header(), Succeeded: true, Responses: []*pb.ResponseOp{
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: inner}}},
		{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Header: inner, Kvs: get.Kvs[:1], Count: 1}}},
		{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Header: inner, Deleted: 1}}},
		{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: &pb.TxnResponse{Header: &pb.ResponseHeader{}}}},
	}}
	watch := &client.WatchResponse{Header: header(), Events: []*mvccpb.Event{
		{Kv: pair("foo", "bar"), PrevKv: pair("foo", "old")},
		{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("foo"), ModRevision: 37}},
	}}
	status := []Status{{Endpoint: "127.0.0.1:2379", Status: &pb.StatusResponse{
		Header: header(), Version: "3.7.1", DbSize: 25000, DbSizeInUse: 20000, DbSizeQuota: 2147483648, Leader: 0x628170c800dbcee,
		RaftIndex: 72, RaftTerm: 2, RaftAppliedIndex: 72, StorageVersion: "3.7.0", Errors: []string{"etcdserver: no leader"},
		DowngradeInfo: &pb.DowngradeInfo{Enabled: true, TargetVersion: "3.6.0"},
	}}}
	health := []Health{{"127.0.0.1:2379", true, "4.055763ms", ""}, {"127.0.0.1:1", false, "5s", "context deadline exceeded"}}
	role := &pb.AuthRoleGetResponse{Header: header(), Perm: []*authpb.Permission{
		{PermType: authpb.Permission_READ, Key: []byte("a"), RangeEnd: []byte("z")},
		{PermType: authpb.Permission_READWRITE, Key: []byte("foo")},
		{PermType: authpb.Permission_READ, Key: []byte("g"), RangeEnd: []byte{0}},
		{PermType: authpb.Permission_WRITE, Key: []byte("pre"), RangeEnd: []byte("prf")},
	}}
	return map[string]func(p *Printer) error{
		"put":    func(p *Printer) error { return p.Put(put) },
		"get":    func(p *Printer) error { return p.Get(get) },
		"del":    func(p *Printer) error { return p.Delete(del) },
		"txn":    func(p *Printer) error { return p.Txn(txn) },
		"watch":  func(p *Printer) error { return p.Watch(watch) },
		"grant":  func(p *Printer) error { return p.Grant(&pb.LeaseGrantResponse{Header: header(), ID: 0x323, TTL: 60}) },
		"revoke": func(p *Printer) error { return p.Revoke(0x323, &pb.LeaseRevokeResponse{Header: header()}) },
		"keep-alive": func(p *Printer) error {
			return p.KeepAlive(&pb.LeaseKeepAliveResponse{Header: header(), ID: 0x323, TTL: 100})
		},
		"timetolive": func(p *Printer) error {
			return p.TimeToLive(&pb.LeaseTimeToLiveResponse{Header: header(), ID: 0x323, TTL: 99, GrantedTTL: 100, Keys: [][]byte{[]byte("k1"), []byte("k2")}}, true)
		},
		"expired": func(p *Printer) error {
			return p.TimeToLive(&pb.LeaseTimeToLiveResponse{Header: header(), ID: 0x323, TTL: -1}, false)
		},
		"leases": func(p *Printer) error {
			return p.Leases(&pb.LeaseLeasesResponse{Header: header(), Leases: []*pb.LeaseStatus{{ID: 0x323}, {ID: 0x324}}})
		},
		"members": func(p *Printer) error {
			return p.MemberList(&pb.MemberListResponse{Header: clusterHeader(), Members: members})
		},
		"member-add": func(p *Printer) error {
			return p.MemberAdd(&pb.MemberAddResponse{Header: clusterHeader(), Member: members[1], Members: members}, "m4")
		},
		"member-remove": func(p *Printer) error {
			return p.MemberRemove(0x12, &pb.MemberRemoveResponse{Header: clusterHeader(), Members: members[:1]})
		},
		"move-leader": func(p *Printer) error { return p.MoveLeader(0x12, 0x34, &pb.MoveLeaderResponse{}) },
		"alarms":      func(p *Printer) error { return p.Alarms(alarm) },
		"health":      func(p *Printer) error { return p.Health(health) },
		"status":      func(p *Printer) error { return p.Status(status) },
		"hashkv": func(p *Printer) error {
			return p.HashKV([]HashKV{{"127.0.0.1:2379", &pb.HashKVResponse{Header: header(), Hash: 2309358291, CompactRevision: 5, HashRevision: 44}}})
		},
		"file-status": func(p *Printer) error { return p.FileStatus(FileStatus{256005860, 44, 2, 24576, "3.7.0"}) },
		"file-hash":   func(p *Printer) error { return p.FileHash(FileHash{2309358291, 44, 5}) },
		"auth-status": func(p *Printer) error {
			return p.AuthStatus(&pb.AuthStatusResponse{Header: header(), Enabled: true, AuthRevision: 18})
		},
		"role": func(p *Printer) error { return p.RoleGet("r1", role) },
		"roles": func(p *Printer) error {
			return p.RoleList(&pb.AuthRoleListResponse{Header: header(), Roles: []string{"r1", "r2"}})
		},
		"user": func(p *Printer) error {
			return p.UserGet("alice", &pb.AuthUserGetResponse{Header: header(), Roles: []string{"r1", "r2"}})
		},
		"role-revoke": func(p *Printer) error {
			return p.RevokePermission("r1", []byte("g"), []byte{0}, &pb.AuthRoleRevokePermissionResponse{Header: header()})
		},
		"downgrade": func(p *Printer) error {
			return p.Downgrade("validate", &pb.DowngradeResponse{Header: header(), Version: "3.7"})
		},
	}
}

// If this fails, scripts that read the output of the tool break.
// Write the files anew with: go test ./ctl/print -rewrite
func TestFormats(t *testing.T) {
	for name, show := range answers() {
		var all bytes.Buffer
		for _, format := range []Format{Simple, JSON, Fields, Table} {
			for _, hex := range []bool{false, true} {
				var out bytes.Buffer
				p, err := New(&out, string(format), hex)
				if err != nil {
					t.Fatal(err)
				}
				err = show(p)
				if err != nil && !errors.Is(err, ErrFormat) {
					t.Errorf("%s: %v", name, err)
				}
				title := "-- " + string(format)
				if hex {
					title += " --hex"
				}
				all.WriteString(title + " --\n")
				all.Write(out.Bytes())
				if err != nil {
					all.WriteString("(" + err.Error() + ")\n")
				}
			}
		}
		path := filepath.Join("testdata", name+".golden")
		if *rewrite {
			if err := os.WriteFile(path, all.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(all.Bytes(), want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, all.Bytes(), want)
		}
	}
}

// If this fails, programs cannot decode -w protobuf.
func TestProtobuf(t *testing.T) {
	var out bytes.Buffer
	p, err := New(&out, "protobuf", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Put(&pb.PutResponse{Header: header()}); err != nil {
		t.Fatal(err)
	}
	got := &pb.PutResponse{}
	if err := got.UnmarshalVT(out.Bytes()); err != nil || got.Header.GetRevision() != 44 {
		t.Errorf("got %v, %v", got, err)
	}
	if err := p.Status(nil); err == nil || err.Error() != "protobuf not supported as output format" {
		t.Errorf("status: %v", err)
	}
	if _, err := New(&out, "bogus", false); !errors.Is(err, ErrUnknownFormat) {
		t.Errorf("bogus: %v", err)
	}
}
