package ctl

import (
	"fmt"
	"slices"
	"strings"

	v2 "github.com/kvorum/kvorum/ctl/v2"
)

// apiVariable chooses the API that the commands are for: 3, the default, or 2.
const apiVariable = envPrefix + "API"

// runV2 runs the commands of the v2 API and returns the exit code.
func (a *app) runV2() int {
	both := v2.Names()
	var others []string
	for _, c := range a.root.Commands() {
		if !slices.Contains(both, c.Name()) {
			others = append(others, c.Name())
		}
	}
	return v2.Main(a.ctx, v2.Config{
		Name: a.name, Args: a.Args[1:], Env: a.Env, Stdin: a.Stdin, Stdout: a.Stdout, Stderr: a.Stderr,
		Version: a.Version, V3: others, BackupDir: backupDir, BackupServer: a.backupServer,
	})
}

// hintV2 tells that an unknown command belongs to the v2 API, if it does.
func (a *app) hintV2(text string) bool {
	_, rest, _ := strings.Cut(text, `"`)
	name, _, _ := strings.Cut(rest, `"`)
	if !slices.Contains(v2.Names(), name) {
		return false
	}
	_, _ = fmt.Fprintf(a.Stderr, "%q is a command of the v2 API: set %s=2\n", name, apiVariable)
	return true
}
