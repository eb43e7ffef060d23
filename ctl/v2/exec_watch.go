package v2

import (
	"flag"
	"os/exec"
	"strconv"
	"sync"
)

// runningMax is how many commands of exec-watch run at a time; the next change
// waits until one has ended.
const runningMax = 100

func newExecWatch() *command {
	var after uint64
	var recursive bool
	return &command{
		name: "exec-watch", args: "<key> -- <command> [args...]", short: "Run a command at each change of a key", group: groupKeys,
		example: "exec-watch -r /config -- sh -c 'echo $ETCD_WATCH_KEY'",
		long: "The command finds ETCD_WATCH_ACTION, ETCD_WATCH_MODIFIED_INDEX, ETCD_WATCH_KEY and\n" +
			"ETCD_WATCH_VALUE in its environment, and is not waited for. As with etcdctl, write -r\n" +
			"right before the key; without -r the key comes last: exec-watch <command> [args...] <key>.",
		flags: func(f *flag.FlagSet) {
			f.Uint64Var(&after, "after-index", 0, "changes after this `index`, be they long ago")
			boolFlag(f, &recursive, "recursive", "r", "changes of all keys below too")
		},
		run: func(t *tool, args []string) error {
			if len(args) < 2 {
				return badArgs("Error:  key and command to exec required")
			}
			key, argv := execArgs(args)
			if len(argv) == 0 {
				return badArgs("Error:  key and command to exec required")
			}
			running := newRunning(t)
			defer running.wait()
			return t.watch(key, after, recursive, func(e *event) (bool, error) {
				if e.Node.Dir {
					t.warnf("Ignored dir %s change\n", e.Node.Key)
					return true, nil
				}
				return true, running.start(argv, e)
			})
		},
	}
}

// execArgs tells the key from the command: it stands before the double dash,
// and without one it is last.
func execArgs(args []string) (key string, argv []string) {
	if args[1] == "--" {
		return args[0], args[2:]
	}
	last := len(args) - 1
	return args[last], args[:last]
}

// running are the commands that have been started and not ended.
type running struct {
	t     *tool
	slots chan struct{}
	all   sync.WaitGroup
}

func newRunning(t *tool) *running { return &running{t: t, slots: make(chan struct{}, runningMax)} }

func (r *running) start(argv []string, e *event) error {
	r.slots <- struct{}{}
	cmd := exec.CommandContext(r.t.ctx, argv[0], argv[1:]...) //nolint:gosec // the command that the user wants
	cmd.Stdout, cmd.Stderr = r.t.Stdout, r.t.Stderr
	cmd.Env = append(append([]string{}, r.t.Env...),
		"ETCD_WATCH_ACTION="+e.Action,
		"ETCD_WATCH_MODIFIED_INDEX="+strconv.FormatUint(e.Node.ModifiedIndex, 10),
		"ETCD_WATCH_KEY="+e.Node.Key,
		"ETCD_WATCH_VALUE="+e.Node.Value)
	if err := cmd.Start(); err != nil {
		<-r.slots
		return bare(err)
	}
	r.all.Go(func() {
		_ = cmd.Wait() // how it ends is its own affair
		<-r.slots
	})
	return nil
}

func (r *running) wait() { r.all.Wait() }
