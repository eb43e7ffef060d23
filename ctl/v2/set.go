package v2

import (
	"flag"
	"net/http"
	"net/url"
	"strconv"
)

func ttlFlag(f *flag.FlagSet, ttl *int64) {
	f.Int64Var(ttl, "ttl", 0, "remove the key after so many `seconds` (0 = never)")
}

func newSet() *command {
	var ttl int64
	var value string
	var index uint64
	return &command{
		name: "set", args: "<key> <value>", short: "Set the value of a key", group: groupKeys, example: "set --ttl 60 /config/mode dark",
		long: "A missing value is read from standard input. Put -- before a key or a value that\nbegins with a dash: set -- /key -1",
		flags: func(f *flag.FlagSet) {
			ttlFlag(f, &ttl)
			f.StringVar(&value, "swap-with-value", "", "only if the `value` is this now")
			f.Uint64Var(&index, "swap-with-index", 0, "only if the modified `index` is this now")
		},
		run: func(t *tool, args []string) error {
			key, text, err := t.keyAndValue(args)
			if err != nil {
				return err
			}
			return t.keyCommand(write(http.MethodPut, key, previous(value, index), &text, ttl))
		},
	}
}

// previous is the condition of a swap; "" and 0 are none.
func previous(value string, index uint64) url.Values {
	q := url.Values{}
	if value != "" {
		q.Set("prevValue", value)
	}
	if index != 0 {
		q.Set("prevIndex", strconv.FormatUint(index, 10))
	}
	return q
}

func newMk() *command {
	var ttl int64
	var inOrder bool
	return &command{
		name: "mk", args: "<key> <value>", short: "Make a key that must not exist", group: groupKeys, example: "mk --in-order /queue job",
		long: "A missing value is read from standard input.",
		flags: func(f *flag.FlagSet) {
			f.BoolVar(&inOrder, "in-order", false, "make a key below <key> whose name is the next in order")
			ttlFlag(f, &ttl)
		},
		run: func(t *tool, args []string) error {
			key, text, err := t.keyAndValue(args)
			if err != nil {
				return err
			}
			if inOrder {
				return t.keyCommand(write(http.MethodPost, key, nil, &text, ttl))
			}
			return t.keyCommand(write(http.MethodPut, key, url.Values{"prevExist": {"false"}}, &text, ttl))
		},
	}
}

func newUpdate() *command {
	var ttl int64
	return &command{
		name: "update", args: "<key> <value>", short: "Set the value of a key that must exist", group: groupKeys, example: "update /config/mode light",
		long:  "A missing value is read from standard input.",
		flags: func(f *flag.FlagSet) { ttlFlag(f, &ttl) },
		run: func(t *tool, args []string) error {
			key, text, err := t.keyAndValue(args)
			if err != nil {
				return err
			}
			return t.keyCommand(write(http.MethodPut, key, url.Values{"prevExist": {"true"}}, &text, ttl))
		},
	}
}
