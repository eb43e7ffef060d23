package v2

import (
	"flag"
	"fmt"
	"strings"
)

// helpOn is `help [command [command]]`.
func (t *tool) helpOn(names []string) error {
	all, c := t.commands, (*command)(nil)
	for _, name := range names {
		if c = find(all, name); c == nil {
			return t.unknown(name)
		}
		all = c.sub
	}
	t.help(c)
	return nil
}

// help explains a command, or the tool if it is nil.
func (t *tool) help(c *command) {
	switch {
	case c == nil:
		t.helpTool()
	case len(c.sub) > 0:
		t.printf("%s.\n\nUsage:\n  %s %s <command> [flags] [arguments]\n\nCommands:\n", c.short, t.Name, c.name)
		t.listCommands(c.sub)
		t.printf("\nExamples:\n")
		for _, s := range c.sub {
			t.printf("  %s %s\n", t.Name, s.example)
		}
	default:
		t.helpCommand(c)
	}
}

func (t *tool) helpTool() {
	t.printf("Read, write and watch the keys of the v2 API, and look after members and users.\n\n")
	t.printf("Usage:\n  ETCDCTL_API=2 %s [global flags] <command> [flags] [arguments]\n", t.Name)
	for _, group := range []string{groupKeys, groupCluster, groupAuth} {
		t.printf("\n%s\n", group)
		var some []*command
		for _, c := range t.commands {
			if c.group == group {
				some = append(some, c)
			}
		}
		t.listCommands(some)
	}
	t.printf("\nGlobal flags:\n%s", flagUsages(t.global.flagSet()))
	t.printf("\nThe flags can also be set in the environment, such as ETCDCTL_ENDPOINTS.\n")
	t.printf("ETCDCTL_API=2 is set: these are the commands of the v2 API. Unset it, or set\nETCDCTL_API=3, for those of the v3 API.\n")
	t.printf("\"%s help <command>\" explains a command.\n", t.Name)
}

func (t *tool) helpCommand(c *command) {
	f := c.flagSet()
	usage := c.parent + c.name
	if flagUsages(f) != "" {
		usage += " [flags]"
	}
	if c.args != "" {
		usage += " " + c.args
	}
	t.printf("%s.\n\nUsage:\n  %s %s\n", c.short, t.Name, usage)
	if c.long != "" {
		t.printf("\n%s\n", c.long)
	}
	t.printf("\nExample:\n  %s %s\n", t.Name, c.example)
	if text := flagUsages(f); text != "" {
		t.printf("\nFlags:\n%s", text)
	}
}

func (t *tool) listCommands(all []*command) {
	width := 0
	for _, c := range all {
		width = max(width, len(c.name))
	}
	for _, c := range all {
		t.printf("  %-*s  %s\n", width, c.name, c.short)
	}
}

// flagUsages is one line for each flag, with its other name.
func flagUsages(f *flag.FlagSet) string {
	short := map[string]string{}
	f.VisitAll(func(g *flag.Flag) {
		if of, ok := strings.CutPrefix(g.Usage, alias); ok {
			short[of] = g.Name
		}
	})
	var names, texts []string
	width := 0
	f.VisitAll(func(g *flag.Flag) {
		if strings.HasPrefix(g.Usage, alias) {
			return
		}
		kind, text := flag.UnquoteUsage(g)
		name := dashed(g.Name)
		if s := short[g.Name]; s != "" {
			name = dashed(s) + ", " + name
		}
		if kind != "" {
			name += " " + kind
		}
		names, texts = append(names, name), append(texts, text)
		width = max(width, len(name))
	})
	var out strings.Builder
	for i, name := range names {
		fmt.Fprintf(&out, "  %-*s  %s\n", width, name, texts[i])
	}
	return out.String()
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
