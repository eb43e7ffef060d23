package v2

import (
	"flag"
	"net/http"
	"net/url"
)

func newMkdir() *command {
	return dirCommand("mkdir", "Make a directory that must not exist", "mkdir /config", url.Values{"dir": {"true"}, "prevExist": {"false"}})
}

func newSetdir() *command {
	return dirCommand("setdir", "Make a directory; a file in its place is replaced", "setdir --ttl 60 /sessions", url.Values{"dir": {"true"}})
}

func newUpdatedir() *command {
	return dirCommand("updatedir", "Change the TTL of a directory", "updatedir --ttl 60 /sessions", url.Values{"dir": {"true"}, "prevExist": {"true"}})
}

func dirCommand(name, short, example string, query url.Values) *command {
	var ttl int64
	return &command{
		name: name, args: "<key>", short: short, group: groupKeys, example: example,
		flags: func(f *flag.FlagSet) { ttlFlag(f, &ttl) },
		run: func(t *tool, args []string) error {
			key, err := keyArg(args)
			if err != nil {
				return err
			}
			return t.dirCommand(write(http.MethodPut, key, query, nil, ttl))
		},
	}
}
