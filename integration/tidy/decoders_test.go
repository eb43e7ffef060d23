package tidy

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// decoderName is what functions are called that read what comes from outside: a
// disk, a network, an operator.
func decoderName() *regexp.Regexp {
	return regexp.MustCompile(`^([dD]ecode|[pP]arse|[uU]nmarshal|[sS]can$|[sS]canSegments|[rR]eadSnapFile|[lL]ookup$|[rR]eadForm|[rR]eadBody|[rR]eadFile$|[rR]eadTxn|[rR]eadPair|[rR]eadBoltMeta|isGRPC|IsShallow|isPossible|RevocationLists|Certificates|newSigned$|newSigned|side$)`)
}

// fuzzedBy says which fuzz target, of which folder, feeds the functions that it
// does not call by their names.
func fuzzedBy() map[string]string {
	return map[string]string{
		"client.parseEndpoint":           "client.FuzzEndpoint",
		"ctl.parseRequest":               "ctl.FuzzTxnLines",
		"ctl.readTxn":                    "ctl.FuzzTxnLines",
		"ctl/bench.parseFormat":          "ctl/bench.FuzzFormat",
		"ctl/bench.Unmarshal":            "ctl/bench.FuzzScan",
		"ctl/bench.scanEvent":            "ctl/bench.FuzzScan",
		"internal/nesting.IsShallow":     "server/api.FuzzIsShallow",
		"internal/srv.lookup":            "internal/srv.FuzzAnswer",
		"server/state.decodeTxn":         "server/state.FuzzApply",
		"internal/srv.Lookup":            "internal/srv.FuzzAnswer",
		"mvcc.readBoltMeta":              "mvcc.FuzzCheckDamaged",
		"pki.ParseAuthority":             "pki.FuzzPairs",
		"pki.ReadPair":                   "pki.FuzzPairs",
		"proxy/grpcproxy.Unmarshal":      "proxy/grpcproxy.FuzzUnmarshal",
		"raft/peer.decodeBody":           "raft/peer.FuzzRequests",
		"raft/wal.decodeSnapFile":        "raft/wal.FuzzSnapFile",
		"raft/wal.scanSegments":          "raft/wal.FuzzSegment",
		"server.parseFrameHeader":        "server.FuzzSniff",
		"server.isGRPC":                  "server.FuzzSniff",
		"server.parseFlags":              "server.FuzzFlags",
		"server.parseURL":                "server.FuzzFlags",
		"server.ParseURLs":               "server.FuzzFlags",
		"server.parseList":               "server.FuzzFlags",
		"server.readFile":                "server.FuzzConfigFile",
		"server.unmarshalRequest":        "server.FuzzLeaseEnvelopes",
		"server.unmarshalResponse":       "server.FuzzLeaseEnvelopes",
		"server/api.ParseURL":            "server.FuzzFlags",
		"server/api.parseTarget":         "server/api.FuzzDowngradeTarget",
		"server/api/token.decodePrivate": "server/api/token.FuzzSignedOptions",
		"server/api/token.decodePublic":  "server/api/token.FuzzSignedOptions",
		"server/api/token.newSigned":     "server/api/token.FuzzSignedOptions",
		"server/secure.parsePair":        "server/secure.FuzzFiles",
		"server/secure.parsePool":        "server/secure.FuzzFiles",
		"server/secure.parseLists":       "server/secure.FuzzFiles",
		"server/state.decodePassword":    "server/state.FuzzApply",
		"server/state.decode":            "server/state.FuzzApply",
		"server/state.scan":              "server/state.FuzzApply",
		"server/v2http.readForm":         "server/v2http.FuzzRequest",
		"server/v2http.readBody":         "server/v2http.FuzzBody",
		"server/gateway.decodeBinary":    "server/gateway.FuzzMetadata",
		"server/gateway.parseTimeout":    "server/gateway.FuzzMetadata",
		"server/logs.ParseRotation":      "server/logs.FuzzRotation",
		"mvcc.decodeRecord":              "mvcc.FuzzDecodeRecord",
		"server/state.decodeLease":       "server/state.FuzzRecords",
		"server/state.parseMemberKey":    "server/state.FuzzRecords",
		"server/state.decodeContext":     "server/state.FuzzRecords",
		"raft.DecodeConfChange":          "raft.FuzzStep",
		"raft/wal.parsePair":             "raft/wal.FuzzNames",
		"raft/wal.parseHex16":            "raft/wal.FuzzNames",
		"raft/peer.parseURLs":            "raft/peer.FuzzRequests",
		"raft/peer.parseURL":             "raft/peer.FuzzRequests",
		"server.parseRetention":          "server.FuzzFlags",
		"server.ParseFlags":              "server.FuzzFlags",
		"raft/peer.decodeWhole":          "raft/peer.FuzzRequests",
		"raft/peer.decoder":              "raft/peer.FuzzStreams",
		"server/api.Unmarshal":           "server/api.FuzzUnmarshal",
		"server.side":                    "server.FuzzSniff",
		"raft/peer.parseStreamPath":      "raft/peer.FuzzRequests",
		"server.parseInitialCluster":     "server.FuzzFlags",
		"server/api/token.parseSigned":   "server/api/token.FuzzSignedOptions",
		"server/v2http.parse":            "server/v2http.FuzzRequest",
	}
}

// isNoInput lists what has such a name and reads nothing from outside.
func isNoInput(name string) bool {
	return slices.Contains([]string{
		"ctl/v2.parse",                // flags of the command line, by the flag package
		"proxy/command.Parse",         // the same
		"integration/bench.parse",     // the same
		"integration/bench.parsePerf", // what a tool of ours prints
		"raft/wal.scan",               // a type's constructor
	}, name)
}

// A decoder that was never fed damaged bytes is the first place where an attacker
// finds a panic. Give each new one a fuzz target, `make fuzz` runs them all.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	files, name, table := load(t).files, decoderName(), fuzzedBy()
	called, targets := fuzzCalls(files)
	found := 0
	for _, f := range files {
		if f.test || strings.HasPrefix(f.dir, "integration") || strings.HasPrefix(f.dir, "cmd") {
			continue
		}
		for _, d := range f.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !name.MatchString(fn.Name.Name) {
				continue
			}
			id := f.dir + "." + fn.Name.Name
			if isNoInput(id) {
				continue
			}
			found++
			target := table[id]
			if target == "" && !called[id] {
				t.Errorf("%s: %s reads input, and no fuzz target of its package calls it: write one, or say in this file which one reaches it", f.path, fn.Name.Name)
			}
			if target != "" && !targets[target] {
				t.Errorf("%s: %s is said to be fuzzed by %s, which does not exist", f.path, fn.Name.Name, target)
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d decoders were found: the search is broken", found)
	}
}

// fuzzCalls are the functions that fuzz targets call by name, and the targets.
func fuzzCalls(files []source) (called, targets map[string]bool) {
	called, targets = map[string]bool{}, map[string]bool{}
	for _, f := range files {
		for _, d := range f.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !f.test || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			targets[f.dir+"."+fn.Name.Name] = true
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch what := call.Fun.(type) {
				case *ast.Ident:
					called[f.dir+"."+what.Name] = true
				case *ast.SelectorExpr:
					called[f.dir+"."+what.Sel.Name] = true
				}
				return true
			})
		}
	}
	return called, targets
}
