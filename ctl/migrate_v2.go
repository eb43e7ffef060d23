package ctl

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	v2 "github.com/kvorum/kvorum/ctl/v2"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// v2Prefix begins the keys that the v2 API has in the store of v3.
const v2Prefix = "\x00v2"

// migrationV2 copies v2 keys into v3 keys of the same names.
type migrationV2 struct {
	path, from        string
	dryRun, overwrite bool

	copied, there, leases, dirs, clashes int
}

func newMigrateV2(a *app) *cobra.Command {
	m := &migrationV2{}
	c := &cobra.Command{
		Use: "migrate-v2", Short: "Copy the keys of the v2 API into plain v3 keys of the same names",
		Long: `Copy the keys of the v2 API into plain v3 keys: /a/b becomes the key "/a/b".

What has no equal in v3:
  TTLs         a key with a TTL gets a lease of the seconds that are left; the TTL of a
               directory holds for all keys below it, if it is shorter
  directories  are not copied; empty ones are reported
  hidden keys  (a part of the path begins with _) are not listed by the v2 API; they are
               reported, and copied if --path names a hidden path
  name clashes a v3 key that has another value is left alone and reported, and the exit
               code is 1; --overwrite replaces it

The v2 keys stay. Stop those who write them first: what they write later is not copied.
The command can be run again: a key that has its value already is counted as such.`,
		Example: "  " + a.name + " migrate-v2 --dry-run\n  " + a.name + " migrate-v2 --path /config",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.long(m.run) },
	}
	f := c.Flags()
	f.StringVar(&m.path, "path", "/", "copy what is at this v2 `path` and below")
	f.StringVar(&m.from, "from", "", "read the v2 keys from the server at this `URL`, such as an etcd 3.4; empty = from --endpoints")
	f.BoolVar(&m.dryRun, "dry-run", false, "write nothing, only report")
	f.BoolVar(&m.overwrite, "overwrite", false, "replace v3 keys that have another value")
	return c
}

func (m *migrationV2) run(c command) error {
	source, err := m.source(c)
	if err != nil {
		return err
	}
	all, err := v2.Tree(c.ctx, source, m.path)
	if err != nil {
		return fmt.Errorf("read v2 keys: %w", err)
	}
	for _, e := range all {
		if err := m.copy(c, e); err != nil {
			return fmt.Errorf("copy %s: %w", e.Key, err)
		}
	}
	if m.from == "" {
		if err := m.reportHidden(c); err != nil {
			return fmt.Errorf("look for hidden keys: %w", err)
		}
	}
	verb := "copied"
	if m.dryRun {
		verb = "to copy"
	}
	c.printf("%d keys %s, %d of them with a lease; %d there already, %d clashes, %d empty directories\n", m.copied, verb, m.leases, m.there, m.clashes, m.dirs)
	if m.clashes > 0 && !m.overwrite {
		return fail(exitError, "%d keys were left alone: --overwrite replaces them", m.clashes)
	}
	return nil
}

func (m *migrationV2) source(c command) (s v2.Source, err error) {
	tlsNow, err := c.tlsConfig()
	if err != nil {
		return s, err
	}
	if tlsNow != nil {
		s.TLS = tlsNow()
	}
	if s.User, s.Password, err = c.credentials(); err != nil {
		return s, err
	}
	if m.from != "" {
		s.Endpoints = []string{m.from}
		return s, nil
	}
	scheme := "http://"
	if s.TLS != nil {
		scheme = "https://"
	}
	for _, e := range c.Endpoints() {
		if !strings.Contains(e, "://") {
			e = scheme + e
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s, nil
}

// copy writes one key unless there is another of its name.
func (m *migrationV2) copy(c command, e v2.Entry) error {
	if e.Dir {
		if e.Key != "" { // the root may be empty
			m.dirs++
			c.printf("%s: empty directory, not copied\n", e.Key)
		}
		return nil
	}
	old, err := c.Get(c.ctx, e.Key)
	if err != nil {
		return err
	}
	seen := int64(0)
	if len(old.GetKvs()) > 0 {
		kv := old.GetKvs()[0]
		if bytes.Equal(kv.GetValue(), []byte(e.Value)) {
			m.there++
			return nil
		}
		m.clashes++
		if !m.overwrite {
			c.printf("%s: a v3 key has another value\n", e.Key)
			return nil
		}
		seen = kv.GetModRevision()
	}
	m.copied++
	if e.TTLSeconds > 0 {
		m.leases++
	}
	if m.dryRun {
		return nil
	}
	return m.put(c, e, seen)
}

// put writes the key if it is still as it was seen.
func (m *migrationV2) put(c command, e v2.Entry, seen int64) error {
	var options []client.Option
	if e.TTLSeconds > 0 {
		lease, err := c.Grant(c.ctx, e.TTLSeconds)
		if err != nil {
			return err
		}
		options = append(options, client.Lease(lease.GetID()))
	}
	r, err := c.Txn(c.ctx, client.Txn{
		If:   []*pb.Compare{client.Modified(e.Key, client.Equal, seen)},
		Then: client.Ops(client.PutRequest(e.Key, e.Value, options...)),
	})
	if err == nil && !r.GetSucceeded() {
		err = fmt.Errorf("somebody else has just written the v3 key: run the command again")
	}
	return err
}

// reportHidden names the topmost hidden paths below m.path.
func (m *migrationV2) reportHidden(c command) error {
	below := strings.TrimSuffix(m.path, "/") + "/"
	r, err := c.Get(c.ctx, v2Prefix+below, client.Prefix(), client.KeysOnly())
	if err != nil {
		return err
	}
	last := "\x00"
	for _, kv := range r.GetKvs() {
		path := strings.TrimPrefix(string(kv.GetKey()), v2Prefix)
		at := strings.Index(path[len(below)-1:], "/_")
		if at < 0 {
			continue
		}
		end := len(path)
		if next := strings.IndexByte(path[len(below)+at+1:], '/'); next >= 0 {
			end = len(below) + at + 1 + next
		}
		if path = path[:end]; path != last {
			c.printf("%s: hidden, not copied; --path %s copies it\n", path, path)
			last = path
		}
	}
	return nil
}
