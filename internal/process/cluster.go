// Package process runs clusters of etcd-like servers as processes of their own, on free loopback ports.
//
// It promises that nothing it started outlives Stop, that Start returns only when every member serves, and that every
// wait has a limit.
//
// integration/compat is a module of its own and reads this file through a link, so it imports only the standard library.
package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readyLine is what etcd logs when it serves; readyMax is how long that may take.
const (
	readyLine = "ready to serve client requests"
	readyMax  = 60 * time.Second
	stopMax   = 20 * time.Second
	tailLines = 5000
)

var errExited = errors.New("the server exited before it served")

// Options describe a cluster.
type Options struct {
	Binary string
	Size   int
	Dir    string   // data directories go below it
	Args   []string // for every member, after the usual ones
	Env    []string // for every member, besides those of this process
	Token  string   // initial cluster token; "" = DefaultToken
	// Prepare, when given, fills m.Dir before a member of the new cluster starts, such as from a snapshot.
	Prepare func(m *Member, initialCluster string) error
	// Advertise, when given, makes the peer URL that the others are told out of the one the member listens on, such as
	// that of a proxy.
	Advertise func(name, listenURL string) (advertised string, err error)
	// MemberDir, when given, chooses the data directory of a member.
	MemberDir func(name string) string
}

// DefaultToken is the cluster token of clusters that were given none.
const DefaultToken = "test"

// Cluster is a set of members that started together, and those that joined later.
type Cluster struct {
	Members []*Member
	options Options
}

// Member is one server. Its process comes and goes, with Start and Kill; its exported fields may be changed while it does
// not run.
type Member struct {
	Name, Dir  string
	ClientURL  string
	PeerURL    string   // as the others see it
	ListenPeer string   // where it listens; "" = PeerURL
	Binary     string   // what is run
	Args       []string // its flags; of flags given twice the last one counts
	Env        []string // variables besides those of this process

	mu        sync.Mutex
	cmd       *exec.Cmd        // guarded by mu; nil: not running
	exited    chan struct{}    // guarded by mu; closed when cmd has ended
	state     *os.ProcessState // guarded by mu; how the last process ended
	tail      []string         // guarded by mu: the last log lines
	logged    int              // guarded by mu: lines logged since the first start
	ready     chan struct{}    // guarded by mu; closed at the line that says so
	readySeen bool             // guarded by mu
}

// startTries is how often a cluster is started: between finding a free port and using it, somebody else may take it.
const startTries = 3

// Start starts a new cluster and waits until all members serve.
func Start(o Options) (*Cluster, error) {
	for try := 1; ; try++ {
		c, err := startOnce(o)
		if err == nil || try == startTries || o.Prepare != nil || !strings.Contains(err.Error(), "address already in use") {
			return c, err
		}
		for i := range o.Size {
			if err := os.RemoveAll(filepath.Join(o.Dir, memberName(i)+dirSuffix)); err != nil {
				return nil, err
			}
		}
	}
}

// memberName is the name of a cluster's i-th first member; its data directory has the suffix.
func memberName(i int) string { return fmt.Sprintf("m%d", i+1) }

const dirSuffix = ".etcd"

func startOnce(o Options) (*Cluster, error) {
	c := &Cluster{options: o}
	ports, err := FreePorts(2 * o.Size) // all at once: no two members get the same
	if err != nil {
		return nil, err
	}
	for i := range o.Size {
		m, err := c.newMember(memberName(i), ports[2*i], ports[2*i+1])
		if err != nil {
			return nil, err
		}
		c.Members = append(c.Members, m)
	}
	initial := c.InitialCluster()
	for _, m := range c.Members {
		m.Args = append(m.Args, "--initial-cluster", initial, "--initial-cluster-state", "new")
		if o.Prepare == nil {
			continue
		}
		if err := o.Prepare(m, initial); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", m.Name, err)
		}
	}
	if err := c.StartAll(); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// InitialCluster is the value of --initial-cluster.
func (c *Cluster) InitialCluster() string {
	var parts []string
	for _, m := range c.Members {
		parts = append(parts, m.Name+"="+m.PeerURL)
	}
	return strings.Join(parts, ",")
}

// Join prepares a member for a running cluster: add m.PeerURL to the cluster, then call m.Start.
func (c *Cluster) Join(name string) (*Member, error) {
	ports, err := FreePorts(2)
	if err != nil {
		return nil, err
	}
	m, err := c.newMember(name, ports[0], ports[1])
	if err != nil {
		return nil, err
	}
	c.Members = append(c.Members, m)
	m.Args = append(m.Args, "--initial-cluster", c.InitialCluster(), "--initial-cluster-state", "existing")
	return m, nil
}

func (c *Cluster) newMember(name string, clientPort, peerPort int) (*Member, error) {
	m := &Member{
		Name: name, Dir: filepath.Join(c.options.Dir, name+dirSuffix), Binary: c.options.Binary,
		Env:       c.options.Env,
		ClientURL: fmt.Sprintf("http://127.0.0.1:%d", clientPort), ListenPeer: fmt.Sprintf("http://127.0.0.1:%d", peerPort),
	}
	m.PeerURL = m.ListenPeer
	if c.options.Advertise != nil {
		var err error
		if m.PeerURL, err = c.options.Advertise(name, m.ListenPeer); err != nil {
			return nil, fmt.Errorf("advertise %s: %w", name, err)
		}
	}
	if c.options.MemberDir != nil {
		m.Dir = c.options.MemberDir(name)
	}
	m.Args = m.flags(c.options)
	return m, nil
}

func (m *Member) flags(o Options) []string {
	token := o.Token
	if token == "" {
		token = DefaultToken
	}
	return append([]string{
		"--name", m.Name, "--data-dir", m.Dir,
		"--listen-client-urls", m.ClientURL, "--advertise-client-urls", m.ClientURL,
		"--listen-peer-urls", m.ListenPeer, "--initial-advertise-peer-urls", m.PeerURL,
		"--initial-cluster-token", token,
	}, o.Args...)
}

// Endpoints are the client addresses, host:port.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Endpoint())
	}
	return all
}

// Endpoint is the client address, host:port.
func (m *Member) Endpoint() string { return strings.TrimPrefix(m.ClientURL, "http://") }

// Stop ends all members at once.
func (c *Cluster) Stop() {
	var group sync.WaitGroup
	for _, m := range c.Members {
		group.Go(m.Kill)
	}
	group.Wait()
}

// Launch starts the process and returns at once; Start also waits until it serves.
func (m *Member) Launch() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		return fmt.Errorf("member %s runs already", m.Name)
	}
	if err := os.MkdirAll(filepath.Dir(m.Dir), 0o700); err != nil {
		return err
	}
	cmd := exec.Command(m.Binary, m.Args...)
	cmd.Env = append(withoutServerVariables(os.Environ()), m.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.Binary, err)
	}
	m.cmd, m.exited, m.ready, m.readySeen = cmd, make(chan struct{}), make(chan struct{}), false
	logRead := make(chan struct{})
	go func() { defer close(logRead); m.readLog(read) }()
	go func(exited chan struct{}) {
		_ = cmd.Wait() // how it ended is in its log
		_ = write.Close()
		<-logRead
		m.mu.Lock()
		m.cmd, m.state = nil, cmd.ProcessState
		m.mu.Unlock()
		close(exited)
	}(m.exited)
	return nil
}

// withoutServerVariables drops what would configure the server behind our back.
func withoutServerVariables(env []string) []string {
	var kept []string
	for _, v := range env {
		if !strings.HasPrefix(v, "ETCD_") && !strings.HasPrefix(v, "KVORUM_") {
			kept = append(kept, v)
		}
	}
	return kept
}

// readLog keeps the last lines and notices the one that says the member serves.
func (m *Member) readLog(log io.Reader) {
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadString('\n')
		m.mu.Lock()
		if line != "" {
			m.tail = append(m.tail, strings.TrimRight(line, "\n"))
			m.tail = m.tail[max(0, len(m.tail)-tailLines):]
			m.logged++
		}
		if strings.Contains(line, readyLine) && !m.readySeen {
			m.readySeen = true
			close(m.ready)
		}
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Start starts the process and waits until it serves.
func (m *Member) Start() error {
	if err := m.Launch(); err != nil {
		return err
	}
	return m.WaitReady()
}

// WaitReady waits until the member logs that it serves.
func (m *Member) WaitReady() error {
	m.mu.Lock()
	ready, exited := m.ready, m.exited
	m.mu.Unlock()
	timer := time.NewTimer(readyMax)
	defer timer.Stop()
	select {
	case <-ready:
		return m.waitOldReady(exited)
	case <-exited:
		return fmt.Errorf("member %s: %w:\n%s", m.Name, errExited, m.LogTail(10))
	case <-timer.C:
		return fmt.Errorf("member %s did not serve within %s:\n%s", m.Name, readyMax, m.LogTail(10))
	}
}

// waitOldReady waits for the port: etcd 3.4 logs that it serves just before it does.
func (m *Member) waitOldReady(exited <-chan struct{}) error {
	deadline := time.Now().Add(readyMax)
	for time.Now().Before(deadline) {
		conn, err := net.DialTimeout("tcp", m.Endpoint(), time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-exited:
			return fmt.Errorf("member %s: %w:\n%s", m.Name, errExited, m.LogTail(10))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("member %s does not listen on %s", m.Name, m.Endpoint())
}

// Signal sends a signal; a member that does not run gets none.
func (m *Member) Signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(s)
	}
}

// Kill ends the process without warning and waits until it is gone.
func (m *Member) Kill() {
	m.Signal(syscall.SIGKILL)
	m.WaitExit()
}

// Terminate asks the process to end, and tells whether it did within the time allowed; otherwise it is killed.
func (m *Member) Terminate() bool {
	m.Signal(syscall.SIGTERM)
	m.mu.Lock()
	exited := m.exited
	m.mu.Unlock()
	if exited == nil {
		return true
	}
	timer := time.NewTimer(stopMax)
	defer timer.Stop()
	select {
	case <-exited:
		return true
	case <-timer.C:
		m.Kill()
		return false
	}
}

// WaitExit waits until the process has ended, whoever ended it.
func (m *Member) WaitExit() {
	m.mu.Lock()
	exited := m.exited
	m.mu.Unlock()
	if exited != nil {
		<-exited
	}
}

// PID is the process id; 0 when the member does not run.
func (m *Member) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return 0
	}
	return m.cmd.Process.Pid
}

// LogTail is the end of what the member has logged.
func (m *Member) LogTail(lines int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	for _, line := range m.tail[max(0, len(m.tail)-lines):] {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// Log gives the lines logged since the first start, those before from left out, and the number of the line that comes next.
// Only the last few thousand are kept.
func (m *Member) Log(from int) (lines []string, next int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.logged - len(m.tail)
	if from < m.logged {
		lines = append(lines, m.tail[max(0, from-first):]...)
	}
	return lines, m.logged
}

// Ended tells how the last process ended; nil while one runs and before the first.
func (m *Member) Ended() *os.ProcessState {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		return nil
	}
	return m.state
}

// Exited is closed when the process that was started last has ended. It may be called after the first start.
func (m *Member) Exited() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exited
}

// StartAll starts the members that do not run, all at once, and waits until all serve.
func (c *Cluster) StartAll() error {
	failures := make([]error, len(c.Members))
	var group sync.WaitGroup
	for i, m := range c.Members {
		if m.PID() == 0 {
			group.Go(func() { failures[i] = m.Start() })
		}
	}
	group.Wait()
	return errors.Join(failures...)
}
