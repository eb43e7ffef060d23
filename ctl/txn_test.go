package ctl

import (
	"strconv"
	"strings"
	"testing"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// If this fails, a transaction guards something else than was written.
func TestParseCompare(t *testing.T) {
	for line, want := range map[string]string{
		`mod("k") > "3"`:      "MOD GREATER k 3",
		`m("k") = "3"`:        "MOD EQUAL k 3",
		`create("k") != "0"`:  "CREATE NOT_EQUAL k 0",
		`ver("a b") < "9"`:    "VERSION LESS a b 9",
		`val("k\n") = "x\"y"`: "VALUE EQUAL k\n x\"y",
		`lease("k") = "1f"`:   "LEASE EQUAL k 31",
		`bogus`:               "malformed comparison: bogus",
		`value("k") = v`:      `malformed comparison: value("k") = v; got value("k") = ""`,
		`mod("k")>"0"`:        `malformed comparison: mod("k")>"0"; got mod("k")  ""`,
		`v("k") = "v"`:        `malformed comparison: v("k") = "v" (unknown target v)`,
		`mod("k") > "x"`:      `invalid txn compare request: mod("k") > "x"`,
		`mod("k") ~ "1"`:      `malformed comparison: mod("k") ~ "1" (unknown operator ~)`,
	} {
		c, err := parseCompare(line)
		got := describe(c)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

func describe(c *pb.Compare) string {
	if c == nil {
		return ""
	}
	value := string(c.GetValue())
	if c.Target != pb.Compare_VALUE {
		value = strconv.FormatInt(c.GetVersion()+c.GetCreateRevision()+c.GetModRevision()+c.GetLease(), 10)
	}
	return strings.Join([]string{c.Target.String(), c.Result.String(), string(c.Key), value}, " ")
}

// If this fails, keys with blanks or quotes in a transaction become others.
func TestWords(t *testing.T) {
	for line, want := range map[string]string{
		`put a b`:            "put|a|b",
		`  put "a b"  'c d'`: "put|a b|c d",
		`put a\n "x\n"`:      "put|a\\n|x\n",
		`put k=""`:           "put|k=",
		``:                   "",
	} {
		got, err := words(line)
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%s: got %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`put "a`, `put 'a`} {
		if got, err := words(line); err == nil {
			t.Errorf("%s: got %q, want an error", line, got)
		}
	}
}

// If this fails, a strange line of a transaction crashes the tool, or is taken
// for a request that nobody wrote.
func FuzzTxnLines(f *testing.F) {
	for _, s := range []string{`mod("k") > "3"`, `value("") = ""`, `put "a b" 'c'`, `get k --prefix`, `del -- -x`, `put "`, "(\")", `x("y`} {
		f.Add(s)
	}
	a := &app{}
	f.Fuzz(func(t *testing.T, line string) {
		if c, err := parseCompare(line); (c == nil) == (err == nil) {
			t.Errorf("compare %q: %v, %v", line, c, err)
		}
		r, err := a.parseRequest(line)
		if (r == nil) == (err == nil) {
			t.Errorf("request %q: %v, %v", line, r, err)
		}
	})
}
