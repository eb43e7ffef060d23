package table

import (
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvorum/kvorum/server"
)

func flagRows(w *world) (rows []row) {
	defaults := flagDefaults(w)
	w.vars["$LOG"] = filepath.Join(w.TempDir(), "log")
	for _, f := range facts(w.T, "etcd/flags.txt", 3) {
		name, value, isValue := strings.Cut(f[0], " ")
		r := row{group: "etcd", name: "--" + name, state: met}
		if isValue {
			r.name += "=" + value
		}
		switch got, known := defaults[name]; {
		case f[1] == "gone":
			r.group = "refused as by etcd"
			if _, err := server.ParseFlags(strings.Fields(f[2]), nil, io.Discard); !errors.Is(err, server.ErrUsage) || !strings.Contains(err.Error(), "not defined") {
				r.state, r.why = differs, "the server takes it"
			}
		case !known:
			r.state, r.why = absent, "not defined"
		default:
			r.state, r.why = tryFlag(w, f[2])
			if r.state == met && !isValue && !sameDefault(got, f[1]) {
				r.state, r.why = differs, "the default is "+strconv.Quote(got)+", not "+strconv.Quote(f[1])
			}
		}
		rows = append(rows, r)
	}
	return append(rows, subcommandRows(w)...)
}

// flagDefaults are the server's. Those that follow from other flags are taken
// from the configuration that no flags at all give.
func flagDefaults(w *world) map[string]string {
	w.Helper()
	all := map[string]string{}
	for _, f := range server.Flags() {
		all[f.Name] = f.DefValue
	}
	r, err := server.ParseFlags(nil, nil, io.Discard)
	if err != nil {
		w.Fatal(err)
	}
	c := r.Config
	all["data-dir"], all["log-outputs"], all["cors"], all["host-whitelist"] = c.DataDir, strings.Join(c.LogOutputs, ","), star(c.CORS), star(c.HostWhitelist)
	if all["initial-cluster"] == "" {
		all["initial-cluster"] = c.Name + "=" + c.AdvertisePeerURLs[0].String()
	}
	return all
}

// star: no list and "*" both mean everything.
func star(list []string) string {
	if len(list) == 0 {
		return "*"
	}
	return strings.Join(list, ",")
}

func tryFlag(w *world, args string) (state, string) {
	w.Helper()
	args = w.fill(args)
	r, err := server.ParseFlags(splitFlags(args), nil, io.Discard)
	if err == nil && strings.Contains(args, "--log-outputs") { // parsed when the log is opened
		err = tryStart(args)
	}
	switch {
	case err != nil && strings.Contains(err.Error(), "not supported by this version"):
		return refused, regexp.MustCompile(`(--[a-z-]+(=|: )|feature gate ).*not supported by this version.*$`).FindString(err.Error())
	case err != nil:
		w.Errorf("%s: %v", args, err)
		return refused, err.Error()
	case len(r.Warn) > 0:
		return warned, r.Warn[0]
	}
	return met, ""
}

// tryStart starts a server that cannot have its data where it is told to, and
// gives what else it has against the flags.
func tryStart(args string) error {
	out, _ := exec.Command(filepath.Join(programs, "kvorum"), append(splitFlags(args), "--data-dir=/dev/null/x")...).CombinedOutput()
	if said := regexp.MustCompile(`--[a-z-]+: [^"\n]* not supported by this version[^"\n]*`).Find(out); said != nil {
		return errors.New(string(said))
	}
	return nil
}

// splitFlags splits before each flag: values have blanks.
func splitFlags(args string) (all []string) {
	for _, part := range strings.Split(" "+args, " --")[1:] {
		all = append(all, "--"+part)
	}
	return all
}

// sameDefault compares with what etcd has: "a or b" is either.
func sameDefault(got, want string) bool {
	return slices.ContainsFunc(strings.Split(want, " or "), func(want string) bool {
		x, errX := time.ParseDuration(got)
		y, errY := time.ParseDuration(want)
		return got == want || errX == nil && errY == nil && x == y || got == "[]" && want == ""
	})
}

// subcommandRows read what the server prints about `gateway` and `grpc-proxy`.
func subcommandRows(w *world) (rows []row) {
	help := map[string]string{}
	flagLine := regexp.MustCompile(`(?m)^\s*(?:-\w, )?--?([a-z][a-z-]+)\b(.*(?:\n\s+\t.*)?)`)
	for _, f := range facts(w.T, "etcd/subcommands.txt", 3) {
		text, asked := help[f[0]]
		if !asked {
			out, _ := exec.Command(filepath.Join(programs, "kvorum"), append(strings.Fields(f[0]), "--help")...).CombinedOutput()
			text = string(out)
			help[f[0]] = text
		}
		r := row{group: "etcd " + f[0], name: "--" + f[1], state: absent, why: "there is no such command"}
		if strings.Contains(text, "listen-addr") {
			r.why = "not defined"
		}
		for _, m := range flagLine.FindAllStringSubmatch(text, -1) {
			if m[1] != f[1] {
				continue
			}
			r.state, r.why = met, ""
			if got := printedDefault(m[2]); f[2] != "?" && !sameDefault(got, f[2]) && (!zero(got) || !zero(f[2])) {
				r.state, r.why = differs, "the default is "+strconv.Quote(got)+", not "+strconv.Quote(f[2])
			}
			if _, why, no := strings.Cut(m[2], "not supported: "); no {
				r.state, r.why = refused, strings.TrimSpace(why)
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// printedDefault is what a help text says in brackets, when it is a value: some
// say in words what an empty one means.
func printedDefault(help string) string {
	m := regexp.MustCompile(`\(default (?:"(.*?)"|\[(.*?)\]|(\d\S*|true|false))\)`).FindStringSubmatch(help)
	if m == nil {
		return ""
	}
	return m[1] + m[2] + m[3]
}

// zero: help texts leave such defaults out.
func zero(s string) bool { return s == "" || s == "0" || s == "false" || s == "0s" }
