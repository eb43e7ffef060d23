package raft

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// libraryLogger gives the raft library's talk to slog. The node reports changes
// of the leader itself, once, so what the library says in passing is for
// debugging; its warnings and errors stay what they are.
type libraryLogger struct{ to *slog.Logger }

// warningLevel keeps quiet about what the node handles by itself and what would
// be said again every turn: proposals that wait because the log of the leader
// is full.
func warningLevel(format string) slog.Level {
	if strings.Contains(format, "uncommitted entry size limit") {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// logLeader logs a change of the leader in the words that tools look for in the
// log of etcd; the attributes say the same.
func (n *Node) logLeader(old MemberID) {
	c := n.core
	if old == c.lead {
		return
	}
	what := fmt.Sprintf("raft.node: %s elected leader %s at term %d", hex(c.id), hex(c.lead), c.term)
	switch {
	case c.lead == 0:
		what = fmt.Sprintf("raft.node: %s lost leader %s at term %d", hex(c.id), hex(old), c.term)
	case old != 0:
		what = fmt.Sprintf("raft.node: %s changed leader from %s to %s at term %d", hex(c.id), hex(old), hex(c.lead), c.term)
	}
	if c.lead == c.id {
		n.logger.Info(fmt.Sprintf("%s became leader at term %d", hex(c.id), c.term))
	}
	n.logger.Info(what, "member", hex(c.id), "leader", hex(c.lead), "term", c.term, "commit", c.commit, "role", c.role)
}

func (l libraryLogger) log(level slog.Level, v []any) {
	if ctx := context.Background(); l.to.Enabled(ctx, level) {
		l.to.Log(ctx, level, fmt.Sprint(v...))
	}
}

func (l libraryLogger) logf(level slog.Level, format string, v []any) {
	if ctx := context.Background(); l.to.Enabled(ctx, level) {
		l.to.Log(ctx, level, fmt.Sprintf(format, v...))
	}
}

func (l libraryLogger) Debug(v ...any)                   { l.log(slog.LevelDebug, v) }
func (l libraryLogger) Debugf(format string, v ...any)   { l.logf(slog.LevelDebug, format, v) }
func (l libraryLogger) Info(v ...any)                    { l.log(slog.LevelDebug, v) }
func (l libraryLogger) Infof(format string, v ...any)    { l.logf(slog.LevelDebug, format, v) }
func (l libraryLogger) Warning(v ...any)                 { l.log(slog.LevelWarn, v) }
func (l libraryLogger) Warningf(format string, v ...any) { l.logf(warningLevel(format), format, v) }
func (l libraryLogger) Error(v ...any)                   { l.log(slog.LevelError, v) }
func (l libraryLogger) Errorf(format string, v ...any)   { l.logf(slog.LevelError, format, v) }
func (l libraryLogger) Fatal(v ...any)                   { panic("raft: " + fmt.Sprint(v...)) }
func (l libraryLogger) Fatalf(format string, v ...any)   { panic("raft: " + fmt.Sprintf(format, v...)) }
func (l libraryLogger) Panic(v ...any)                   { panic("raft: " + fmt.Sprint(v...)) }
func (l libraryLogger) Panicf(format string, v ...any)   { panic("raft: " + fmt.Sprintf(format, v...)) }
