//go:build failpoints

package crash

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	gofail "go.etcd.io/gofail/runtime"
)

// On says whether the points can be armed in this build.
const On = true

// points are all there are, from before main on, so that they can be listed and
// armed before they are passed. Never changed.
var points = mustRegister(os.Getenv("GOFAIL_FAILPOINTS"))

// mustRegister ends the process when the variable is wrong, as the library does
// when it cannot read it at all.
func mustRegister(variable string) map[string]*gofail.Failpoint {
	all := map[string]*gofail.Failpoint{}
	for _, name := range names() {
		all[name] = gofail.NewFailpoint(name)
	}
	if err := check(variable); err != nil {
		fmt.Fprintln(os.Stderr, "GOFAIL_FAILPOINTS:", err)
		os.Exit(1)
	}
	return all
}

// check finds what the library would ignore: names that do not exist and terms
// that it cannot read.
func check(variable string) error {
	term := `((\d+\.\d+%|\d+\*)*(off|return|sleep|panic|break|print)(\(("[^"]*"|-?\d+|true|false)?\))?)`
	chain := regexp.MustCompile(`^` + term + `(->` + term + `)*$`)
	var all []error
	for part := range strings.SplitSeq(variable, ";") {
		if part == "" {
			continue
		}
		name, terms, _ := strings.Cut(part, "=")
		if !slices.Contains(names(), name) {
			all = append(all, fmt.Errorf("no point is named %q; GET / of the address in GOFAIL_HTTP lists them", name))
		} else if _, _, err := gofail.Status(name); err != nil || !chain.MatchString(terms) {
			all = append(all, fmt.Errorf("%s: cannot read the term %q; want such as panic, sleep(100), return(true), 3*off->panic or 50.0%%panic", name, terms))
		}
	}
	return errors.Join(all...)
}

// Here does what the point was armed with: it panics, sleeps, or ends the
// process.
func Here(name string) {
	defer dieOfPanic(name)
	v, err := point(name).Acquire()
	if err != nil || v != "kill" {
		return
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}

// Set reports whether the named fault was asked for by return, with any value or
// none.
func Set(name string) bool {
	defer dieOfPanic(name)
	_, err := point(name).Acquire()
	return err == nil
}

// dieOfPanic ends the process by the panic under way, also below a handler of
// net/http, which would recover it.
func dieOfPanic(name string) {
	if p := recover(); p != nil {
		fmt.Fprintf(os.Stderr, "panic: %v\n\ncrash point %s\n\n%s", p, name, debug.Stack())
		os.Exit(exitPanic)
	}
}

// exitPanic is what Go's own panics exit with.
const exitPanic = 2

func point(name string) *gofail.Failpoint {
	p := points[name]
	if p == nil {
		panic("crash point " + name + " is not in names.go")
	}
	return p
}
