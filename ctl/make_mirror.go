package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

const mirrorPage = 1000 // pairs read at a time

type mirror struct {
	prefix, destPrefix, cacert, cert, key, user, password string
	noDestPrefix, insecure                                bool
	rev                                                   int64
	opsMax                                                int

	// Owned by the goroutine that copies.
	dest  *client.Client
	count int
	told  time.Time
}

func newMakeMirror(a *app) *cobra.Command {
	m := &mirror{}
	c := &cobra.Command{
		Use: "make-mirror <endpoints>", Short: "Copy keys to another cluster and keep them up to date",
		Example: "  " + a.name + " make-mirror --prefix /config/ backup.example.com:2379",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return badArgs("make-mirror takes one destination argument")
			}
			return a.long(func(c command) error { return m.run(c, args[0]) })
		},
	}
	f := c.Flags()
	f.StringVar(&m.prefix, "prefix", "", "copy the keys that begin with this")
	f.Int64Var(&m.rev, "rev", 0, "copy nothing first, and follow the changes from this revision on")
	f.StringVar(&m.destPrefix, "dest-prefix", "", "in the other cluster, begin the keys with this in place of --prefix")
	f.BoolVar(&m.noDestPrefix, "no-dest-prefix", false, "in the other cluster, cut --prefix off the keys")
	f.StringVar(&m.cert, "dest-cert", "", "like --cert, for the other cluster")
	f.StringVar(&m.key, "dest-key", "", "like --key, for the other cluster")
	f.StringVar(&m.cacert, "dest-cacert", "", "like --cacert, for the other cluster")
	f.BoolVar(&m.insecure, "dest-insecure-transport", true, "like --insecure-transport, for the other cluster")
	f.StringVar(&m.user, "dest-user", "", "like --user, for the other cluster")
	f.StringVar(&m.password, "dest-password", "", "like --password, for the other cluster")
	f.IntVar(&m.opsMax, "max-txn-ops", 128, "changes to write in one transaction at most")
	return c
}

func (m *mirror) run(c command, destination string) error {
	if m.destPrefix != "" && m.noDestPrefix {
		return badArgs("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one")
	}
	if err := m.connect(c, destination); err != nil {
		return err
	}
	defer func() { _ = m.dest.Close() }()
	m.told = time.Now()
	from := m.rev
	if from == 0 {
		at, err := m.copyAll(c)
		if err != nil {
			return err
		}
		from = at + 1
	}
	return m.follow(c, from)
}

func (m *mirror) connect(c command, destination string) (err error) {
	other := *c.app
	g := &other.global
	g.endpoints, g.srvDomain, g.token = strings.Split(destination, ","), "", ""
	g.cacert, g.cert, g.key, g.insecureTransport = m.cacert, m.cert, m.key, m.insecure
	g.user, g.password = m.user, m.password
	m.dest, err = other.connect()
	return err
}

func (m *mirror) name(key []byte) string {
	if !m.noDestPrefix && m.destPrefix == "" {
		return string(key)
	}
	return m.destPrefix + strings.TrimPrefix(string(key), m.prefix)
}

// copyAll copies everything as of one revision and returns it.
func (m *mirror) copyAll(c command) (rev int64, err error) {
	start := client.GetRequest(m.prefix, client.Prefix(), client.Limit(mirrorPage))
	for {
		start.Revision = rev
		r, err := c.KV.Range(c.ctx, start)
		if err != nil {
			return 0, err
		}
		if rev == 0 {
			rev = r.Header.GetRevision()
		}
		for _, kv := range r.Kvs {
			if _, err := m.dest.Put(c.ctx, m.name(kv.Key), string(kv.Value)); err != nil {
				return 0, fmt.Errorf("copy %q: %w", kv.Key, err)
			}
			m.tell(c, 1)
		}
		if !r.More {
			return rev, nil
		}
		start.Key = append(r.Kvs[len(r.Kvs)-1].Key, 0)
	}
}

// follow repeats every revision as one transaction, unless it is too large.
func (m *mirror) follow(c command, from int64) error {
	w := c.Client.Watch(c.ctx, m.prefix, client.Prefix(), client.Revision(from), client.Fragment())
	for {
		r, err := w.Next()
		if err != nil {
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		var ops []*pb.RequestOp
		last := int64(0)
		for _, e := range r.Events {
			if len(ops) > 0 && (e.Kv.ModRevision != last || len(ops) >= m.opsMax) {
				if err := m.write(c, ops); err != nil {
					return err
				}
				ops = nil
			}
			last = e.Kv.ModRevision
			ops = append(ops, m.op(e)...)
		}
		if err := m.write(c, ops); err != nil {
			return err
		}
	}
}

func (m *mirror) op(e *mvccpb.Event) []*pb.RequestOp {
	if e.Type == mvccpb.Event_DELETE {
		return client.Ops(client.DeleteRequest(m.name(e.Kv.Key)))
	}
	return client.Ops(client.PutRequest(m.name(e.Kv.Key), string(e.Kv.Value)))
}

func (m *mirror) write(c command, ops []*pb.RequestOp) error {
	if len(ops) == 0 {
		return nil
	}
	if _, err := m.dest.Txn(c.ctx, client.Txn{Then: ops}); err != nil {
		return fmt.Errorf("write to the mirror: %w", err)
	}
	m.tell(c, len(ops))
	return nil
}

// tell counts, and says so every 30 seconds.
func (m *mirror) tell(c command, n int) {
	m.count += n
	if now := time.Now(); now.Sub(m.told) >= 30*time.Second {
		m.told = now
		c.printf("%d\n", m.count)
	}
}
