package ctl

import (
	"bufio"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newTxn(a *app) *cobra.Command {
	var interactive bool
	c := &cobra.Command{
		Use: "txn", Short: "Compare keys and do several requests at once, or none of them",
		Long: `Compare keys and do several requests at once, or none of them. Standard input has
three parts, with an empty line after each: what to compare, what to do when all of it
holds, and what to do otherwise.

  compare   value("k") = "v"   also mod, create, version, lease; also !=, <, >
  request   put k v, get k, del k, with the flags that these commands have`,
		Example: "  printf 'version(\"k\") = \"0\"\\n\\nput k first\\n\\nget k\\n\\n' | " + a.name + " txn",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArgs("txn command does not accept argument")
			}
			return a.online(func(c command) error {
				t, err := a.readTxn(interactive)
				if err != nil {
					return err
				}
				answer, err := c.Client.Txn(c.ctx, t)
				if err != nil {
					return err
				}
				return c.Printer.Txn(answer)
			})
		},
	}
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "say which part comes next")
	return c
}

func (a *app) readTxn(interactive bool) (t client.Txn, err error) {
	in := bufio.NewReader(a.Stdin)
	title := func(s string) {
		if interactive {
			a.printf("%s\n", s)
		}
	}
	title("compares:")
	err = section(in, func(line string) error {
		c, err := parseCompare(line)
		t.If = append(t.If, c)
		return err
	})
	for _, branch := range []struct {
		title string
		ops   *[]*pb.RequestOp
	}{{"success requests (get, put, del):", &t.Then}, {"failure requests (get, put, del):", &t.Else}} {
		if err != nil {
			return t, err
		}
		title(branch.title)
		err = section(in, func(line string) error {
			r, err := a.parseRequest(line)
			if err == nil {
				*branch.ops = append(*branch.ops, client.Ops(r)...)
			}
			return err
		})
	}
	return t, err
}

// section reads lines up to an empty one or the end.
func section(in *bufio.Reader, use func(line string) error) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fail(exitInput, "read standard input: %w", err)
		}
		line = strings.TrimSpace(line)
		if line == "" {
			return nil
		}
		if bad := use(line); bad != nil {
			return &failure{exitInput, bad}
		}
		if err != nil {
			return nil //nolint:nilerr // the end of the input ends the part
		}
	}
}

// comparePattern is target("key") op "value".
var comparePattern = regexp.MustCompile(`^(\w+)\(("(?:[^"\\]|\\.)*")\)\s+(\S+)\s+("(?:[^"\\]|\\.)*")$`)

func parseCompare(line string) (*pb.Compare, error) {
	m := comparePattern.FindStringSubmatch(strings.TrimSpace(line))
	if m == nil {
		return nil, malformed(line)
	}
	key, err := strconv.Unquote(m[2])
	if err != nil {
		return nil, malformed(line)
	}
	value, err := strconv.Unquote(m[4])
	if err != nil {
		return nil, malformed(line)
	}
	is, found := map[string]client.Is{"=": client.Equal, "!=": client.NotEqual, ">": client.Greater, "<": client.Less}[m[3]]
	if !found {
		return nil, errors.New("malformed comparison: " + line + " (unknown operator " + m[3] + ")")
	}
	return compare(m[1], key, is, value, line)
}

func compare(target, key string, is client.Is, value, line string) (*pb.Compare, error) {
	base := 10
	if target == "lease" {
		base = 16
	}
	n, bad := strconv.ParseInt(value, base, 64)
	var c *pb.Compare
	switch target {
	case "ver", "version":
		c = client.Version(key, is, n)
	case "c", "create":
		c = client.Created(key, is, n)
	case "m", "mod":
		c = client.Modified(key, is, n)
	case "lease":
		c = client.LeaseOf(key, is, n)
	case "val", "value":
		return client.Value(key, is, value), nil
	default:
		return nil, errors.New("malformed comparison: " + line + " (unknown target " + target + ")")
	}
	if bad != nil {
		return nil, errors.New("invalid txn compare request: " + line)
	}
	return c, nil
}

// malformed words the error as scripts know it: with what could be understood.
func malformed(line string) error {
	head, key, found := strings.Cut(line, "(\"")
	if !found {
		return errors.New("malformed comparison: " + line)
	}
	key, tail, found := strings.Cut(key, "\")")
	if !found {
		return errors.New("malformed comparison: " + line)
	}
	op, _, _ := strings.Cut(strings.TrimPrefix(tail, " "), " ")
	if strings.HasPrefix(op, "=\"") || strings.Contains(op, "\"") {
		op = ""
	}
	return errors.New("malformed comparison: " + line + "; got " + head + "(\"" + key + "\") " + op + " \"\"")
}

// parseRequest reads a line of a branch: put, get or del with their flags.
func (a *app) parseRequest(line string) (any, error) {
	args, err := words(line)
	if err != nil || len(args) == 0 {
		return nil, errors.New("invalid txn request: " + line)
	}
	s := pflag.NewFlagSet(args[0], pflag.ContinueOnError)
	s.SetOutput(io.Discard)
	var build func(args []string) (any, error)
	switch args[0] {
	case "put":
		f := &putFlags{}
		f.register(s)
		build = func(args []string) (any, error) { return f.request(args, strings.NewReader("")) }
	case "get":
		f := &getFlags{}
		f.register(s)
		build = func(args []string) (any, error) { return f.request(args) }
	case "del":
		f := &delFlags{}
		f.register(s)
		build = func(args []string) (any, error) { return f.request(args) }
	default:
		return nil, errors.New("invalid txn request: " + line)
	}
	if err := s.Parse(args[1:]); err != nil {
		return nil, errors.New("invalid txn request: " + line + " (" + err.Error() + ")")
	}
	r, err := build(s.Args())
	if err != nil {
		return nil, errors.New("invalid txn request: " + line + " (" + err.Error() + ")")
	}
	return r, nil
}
