package mvcc

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// TestScenarios: if it fails, the store answers a client otherwise than etcd
// does. Each file in testdata is a story that can be read without this code.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		sc := &scenario{t: t, path: filepath.Join(t.TempDir(), "db")}
		sc.open()
		defer func() { sc.s.Close() }()
		datadriven.RunTest(t, path, sc.run)
	})
}

type scenario struct {
	t    *testing.T
	path string
	s    *Store
}

func (sc *scenario) open() {
	s, err := Open(sc.path, testOptions())
	if err != nil {
		sc.t.Fatal(err)
	}
	sc.s = s
}

func (sc *scenario) run(t *testing.T, d *datadriven.TestData) string {
	var b strings.Builder
	switch d.Cmd {
	case "apply": // the lines are one log entry
		w := sc.s.Write(Applied{Index: sc.s.Applied().Index + 1, Term: 1})
		for _, line := range strings.Split(d.Input, "\n") {
			sc.apply(w, &b, line)
		}
		w.Close()
		sc.s.Publish()
	case "txn": // compares, then "then" and "else" branches
		w := sc.s.Write(Applied{Index: sc.s.Applied().Index + 1, Term: 1})
		resp, err := w.Txn(sc.txn(strings.Split(d.Input, "\n")), leaseExists)
		showTxn(&b, "", resp, err)
		w.Close()
		sc.s.Publish()
	case "range":
		for _, line := range strings.Split(d.Input, "\n") {
			resp, err := sc.s.Range(rangeOfLine(line))
			showRange(&b, resp, err)
		}
	case "flush":
		if err := sc.s.Flush(); err != nil {
			return err.Error()
		}
	case "compact-now":
		finishCompactions(t, sc.s)
	case "reopen":
		if err := sc.s.Close(); err != nil {
			return err.Error()
		}
		sc.open()
	case "crash": // what is not flushed is lost
		copied := filepath.Join(t.TempDir(), "db")
		copyTest(t, sc.path, copied)
		sc.s.Close()
		sc.path = copied
		sc.open()
	case "state":
		st := sc.s.Stats()
		fmt.Fprintf(&b, "revision %d, compacted %d, applied %v, %d keys\n", st.Revision, st.CompactRevision, sc.s.Applied(), st.Keys)
	case "file":
		if err := sc.s.Flush(); err != nil {
			return err.Error()
		}
		sc.showFile(&b)
	case "history":
		sc.history(&b, d)
	case "lease":
		fmt.Fprintf(&b, "%q\n", sc.s.LeaseKeys(LeaseID(number(d.CmdArgs[0].Key))))
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	return b.String()
}

func copyTest(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func (sc *scenario) apply(w *Writer, b *strings.Builder, line string) {
	f := strings.Fields(line)
	switch f[0] {
	case "compact":
		showErr(b, "compact", w.Compact(Revision(number(f[1]))))
	case "revoke":
		w.DeleteKeys(sc.s.LeaseKeys(LeaseID(number(f[1]))))
	case "set":
		w.Set(Bucket(f[1]), []byte(f[2]), []byte(f[3]))
	default:
		showOp(b, "", opOf(w, line))
	}
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// words splits "put a 1 lease=2 prev" into positional words and options.
func words(line string) (pos []string, opts map[string]string) {
	opts = map[string]string{}
	for _, f := range strings.Fields(line)[1:] {
		if k, v, ok := strings.Cut(f, "="); ok {
			opts[k] = v
		} else if strings.HasPrefix(f, "--") {
			opts[f[2:]] = ""
		} else {
			pos = append(pos, f)
		}
	}
	return pos, opts
}

func endOf(pos []string) []byte {
	if len(pos) < 2 {
		return nil
	}
	if pos[1] == `\0` {
		return []byte{0}
	}
	return []byte(pos[1])
}

func putOfLine(line string) *pb.PutRequest {
	pos, o := words(line)
	r := &pb.PutRequest{Key: []byte(pos[0])}
	if len(pos) > 1 {
		r.Value = []byte(pos[1])
	}
	if v, ok := o["lease"]; ok {
		r.Lease = number(v)
	}
	_, r.PrevKv = o["prev"]
	_, r.IgnoreValue = o["ignore-value"]
	_, r.IgnoreLease = o["ignore-lease"]
	return r
}

func deleteOfLine(line string) *pb.DeleteRangeRequest {
	pos, o := words(line)
	_, prev := o["prev"]
	return &pb.DeleteRangeRequest{Key: []byte(pos[0]), RangeEnd: endOf(pos), PrevKv: prev}
}

func rangeOfLine(line string) *pb.RangeRequest {
	pos, o := words(line)
	r := &pb.RangeRequest{Key: []byte(pos[0]), RangeEnd: endOf(pos)}
	for name, field := range map[string]*int64{
		"rev": &r.Revision, "limit": &r.Limit, "min-mod": &r.MinModRevision, "max-mod": &r.MaxModRevision,
		"min-create": &r.MinCreateRevision, "max-create": &r.MaxCreateRevision,
	} {
		if v, ok := o[name]; ok {
			*field = number(v)
		}
	}
	_, r.KeysOnly = o["keys-only"]
	_, r.CountOnly = o["count-only"]
	r.SortTarget = pb.RangeRequest_SortTarget(pb.RangeRequest_SortTarget_value[o["sort"]])
	r.SortOrder = pb.RangeRequest_SortOrder(pb.RangeRequest_SortOrder_value[o["order"]])
	return r
}

// answer is what one operation gave.
type answer struct {
	resp any
	err  error
}

func opOf(w *Writer, line string) answer {
	switch strings.Fields(line)[0] {
	case "put":
		resp, err := w.Put(putOfLine(line))
		return answer{resp, err}
	case "delete":
		resp, err := w.DeleteRange(deleteOfLine(line))
		return answer{resp, err}
	case "get":
		resp, err := w.Range(rangeOfLine(line))
		return answer{resp, err}
	}
	panic("unknown operation " + line)
}

// txn reads a transaction; deeper transactions are indented below "txn".
func (sc *scenario) txn(lines []string) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	ops := &r.Success
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		f := strings.Fields(line)
		switch f[0] {
		case "if":
			r.Compare = append(r.Compare, compareOf(f[1:]))
		case "then":
			ops = &r.Success
		case "else":
			ops = &r.Failure
		case "txn":
			var deeper []string
			for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "  ") {
				i++
				deeper = append(deeper, lines[i][2:])
			}
			*ops = append(*ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: sc.txn(deeper)}})
		case "put":
			*ops = append(*ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putOfLine(line)}})
		case "delete":
			*ops = append(*ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: deleteOfLine(line)}})
		case "get":
			*ops = append(*ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: rangeOfLine(line)}})
		}
	}
	return r
}

// compareOf reads "version a = 0" or "value a..c != x".
func compareOf(f []string) *pb.Compare {
	key, end, _ := strings.Cut(f[1], "..")
	c := &pb.Compare{Key: []byte(key), Result: map[string]pb.Compare_CompareResult{
		"=": pb.Compare_EQUAL, "!=": pb.Compare_NOT_EQUAL, ">": pb.Compare_GREATER, "<": pb.Compare_LESS}[f[2]]}
	if end != "" {
		c.RangeEnd = endOf([]string{key, end})
	}
	switch f[0] {
	case "version":
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: number(f[3])}
	case "create":
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: number(f[3])}
	case "mod":
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: number(f[3])}
	case "lease":
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: number(f[3])}
	case "value":
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(f[3])}
	default:
		panic("unknown target " + f[0])
	}
	return c
}

func kvText(kv *mvccpb.KeyValue) string {
	s := fmt.Sprintf("%s=%s c%d m%d v%d", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		s += fmt.Sprintf(" lease %d", kv.Lease)
	}
	return s
}

func showErr(b *strings.Builder, what string, err error) {
	if err != nil {
		fmt.Fprintf(b, "%s: %v\n", what, err)
	}
}

func showOp(b *strings.Builder, indent string, a answer) {
	if a.err != nil {
		fmt.Fprintf(b, "%serror: %v\n", indent, a.err)
		return
	}
	switch r := a.resp.(type) {
	case *pb.PutResponse:
		fmt.Fprintf(b, "%sput at %d\n", indent, r.Header.Revision)
		if r.PrevKv != nil {
			fmt.Fprintf(b, "%s  before: %s\n", indent, kvText(r.PrevKv))
		}
	case *pb.DeleteRangeResponse:
		fmt.Fprintf(b, "%sdeleted %d at %d\n", indent, r.Deleted, r.Header.Revision)
		for _, kv := range r.PrevKvs {
			fmt.Fprintf(b, "%s  before: %s\n", indent, kvText(kv))
		}
	case *pb.RangeResponse:
		fmt.Fprintf(b, "%s", indent)
		showRange(b, r, nil)
	}
}

func showRange(b *strings.Builder, r *pb.RangeResponse, err error) {
	if err != nil {
		fmt.Fprintf(b, "error: %v\n", err)
		return
	}
	fmt.Fprintf(b, "at %d: count %d", r.Header.Revision, r.Count)
	if r.More {
		b.WriteString(", more")
	}
	for _, kv := range r.Kvs {
		fmt.Fprintf(b, " | %s", kvText(kv))
	}
	b.WriteString("\n")
}

func showTxn(b *strings.Builder, indent string, r *pb.TxnResponse, err error) {
	if err != nil {
		fmt.Fprintf(b, "%serror: %v\n", indent, err)
		return
	}
	fmt.Fprintf(b, "%ssucceeded %v at %d\n", indent, r.Succeeded, r.Header.Revision)
	for _, op := range r.Responses {
		switch x := op.Response.(type) {
		case *pb.ResponseOp_ResponseTxn:
			showTxn(b, indent+"  ", x.ResponseTxn, nil)
		case *pb.ResponseOp_ResponsePut:
			showOp(b, indent+"  ", answer{x.ResponsePut, nil})
		case *pb.ResponseOp_ResponseDeleteRange:
			showOp(b, indent+"  ", answer{x.ResponseDeleteRange, nil})
		case *pb.ResponseOp_ResponseRange:
			showOp(b, indent+"  ", answer{x.ResponseRange, nil})
		}
	}
}

func (sc *scenario) showFile(b *strings.Builder) {
	pairs, _ := dumpFile(sc.t, sc.s)
	for _, k := range sortedKeys(pairs) {
		name, key, _ := strings.Cut(k, "/")
		if name != string(BucketKey) {
			continue
		}
		at, err := parseStamp([]byte(key))
		if err != nil {
			sc.t.Fatal(err)
		}
		if kv := decodeTest(sc.t, []byte(pairs[k])); at.tomb {
			fmt.Fprintf(b, "%d.%d: %s deleted\n", at.main, at.sub, kv.Key)
		} else {
			fmt.Fprintf(b, "%d.%d: %s\n", at.main, at.sub, kvText(kv))
		}
	}
}

func (sc *scenario) history(b *strings.Builder, d *datadriven.TestData) {
	var from int64
	d.ScanArgs(sc.t, "from", &from)
	events, next, err := sc.s.history(Revision(from), sc.s.Revision(), []byte("a"), []byte{0}, 1000, 1<<20)
	showErr(b, "error", err)
	for _, e := range events {
		kv := decodeTest(sc.t, e.record)
		if e.kind == EventDelete {
			fmt.Fprintf(b, "%d: %s deleted\n", e.rev, kv.Key)
		} else {
			fmt.Fprintf(b, "%d: %s\n", e.rev, kvText(kv))
		}
	}
	if err == nil {
		fmt.Fprintf(b, "next %d\n", next)
	}
}
