package ctl

import (
	"encoding/json"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/ctl/print"
	"github.com/kvorum/kvorum/server/offline"
)

// exitUnchecked is the exit code of a check that could not examine the data;
// damage is exitError.
const exitUnchecked = exitConnection

// withCheckData makes `check --data-dir` out of the group of the other checks.
func withCheckData(a *app, g *cobra.Command) {
	var d offline.Dir
	online := g.RunE
	g.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("data-dir") && !cmd.Flags().Changed("wal-dir") {
			return online(cmd, args)
		}
		if len(args) > 0 {
			return badArgs("check --data-dir takes no arguments, got %q", args)
		}
		if d.Data == "" {
			return badArgs("--data-dir is missing")
		}
		return a.checkData(d)
	}
	g.Example = "  " + a.name + " check --data-dir default.etcd\n" + g.Example
	f := g.Flags()
	f.StringVar(&d.Data, "data-dir", "", "examine a stopped member's data `folder`, without changing it; exit codes: 0 sound, 1 damaged, 2 not examined")
	f.StringVar(&d.WAL, "wal-dir", "", "`folder` of its log, if it is not inside --data-dir")
}

func (a *app) checkData(d offline.Dir) error {
	p, err := a.structured()
	if err != nil {
		return err
	}
	r, err := offline.Check(d)
	if err != nil {
		return &failure{exitUnchecked, err}
	}
	if p.Format() == print.JSON {
		err = json.NewEncoder(a.Stdout).Encode(r)
	} else {
		a.showReport(r)
	}
	if err == nil && !r.Sound {
		err = &failure{code: exitError}
	}
	return err
}

// structured is the printer of commands that have only -w simple and json.
func (a *app) structured() (*print.Printer, error) {
	p, err := a.printer()
	if err != nil {
		return nil, err
	}
	if f := p.Format(); f != print.Simple && f != print.JSON {
		return nil, &failure{exitFeature, fmt.Errorf("-w %s: %w; there are simple and json", f, print.ErrFormat)}
	}
	return p, nil
}

func (a *app) showReport(r offline.Report) {
	l, b := r.Log, r.Database
	a.printf("%s: member %s (%s) of cluster %s\n", r.DataDir, r.Name, r.Member, r.Cluster)
	a.printf("log:      %d segments, entries %d to %d, term %d, %d known to be committed\n", l.Segments, l.First, l.Last, l.Term, l.Committed)
	a.printf("database: %s, entries up to %d, revision %d, %d keys in %d records, %d leases\n",
		humanize.Bytes(uint64(b.Bytes)), b.Applied, b.Revision, b.Keys, b.Records, b.Leases) //nolint:gosec // a size
	damages := 0
	advised := ""
	for _, p := range r.Problems {
		if p.Severity == offline.Damage {
			damages++
		}
		a.printf("\n%s in %s", map[offline.Severity]string{offline.Damage: "DAMAGE", offline.Warning: "Warning"}[p.Severity], p.File)
		if p.Offset != nil {
			a.printf(", at offset %d", *p.Offset)
		}
		if p.Key != nil {
			a.printf(", key %q", p.Key)
		}
		a.printf(":\n  %s\n", p.What)
		if p.Advice != advised { // often the same for all
			a.printf("  What to do: %s\n", p.Advice)
			advised = p.Advice
		}
	}
	switch {
	case damages > 0:
		a.printf("\nDamaged: do not start a server on it.\n")
	case len(r.Problems) > 0:
		a.printf("\nSound, with warnings.\n")
	default:
		a.printf("\nSound: nothing is wrong.\n")
	}
}
