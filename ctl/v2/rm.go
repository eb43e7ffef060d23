package v2

import (
	"flag"
	"net/http"
)

func newRm() *command {
	var dir, recursive bool
	var value string
	var index uint64
	return &command{
		name: "rm", args: "<key>", short: "Remove a key or a directory", group: groupKeys, example: "rm --recursive /sessions",
		flags: func(f *flag.FlagSet) {
			f.BoolVar(&dir, "dir", false, "remove a directory if it is empty")
			boolFlag(f, &recursive, "recursive", "r", "remove a directory and all below it")
			f.StringVar(&value, "with-value", "", "only if the `value` is this now")
			f.Uint64Var(&index, "with-index", 0, "only if the modified `index` is this now")
		},
		run: func(t *tool, args []string) error { return t.remove(args, dir, recursive, value, index) },
	}
}

func newRmdir() *command {
	return &command{
		name: "rmdir", args: "<key>", short: "Remove a directory if it is empty, or a key", group: groupKeys, example: "rmdir /config",
		run: func(t *tool, args []string) error { return t.remove(args, true, false, "", 0) },
	}
}

func (t *tool) remove(args []string, dir, recursive bool, value string, index uint64) error {
	key, err := keyArg(args)
	if err != nil {
		return err
	}
	q := previous(value, index)
	if dir {
		q.Set("dir", "true")
	}
	if recursive {
		q.Set("recursive", "true")
	}
	return t.keyCommand(request{method: http.MethodDelete, path: keyPath(key), query: q})
}
