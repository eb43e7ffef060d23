package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/kvorum/kvorum/client"
)

// The gaps are measured in a process of their own, so that what the tool itself does meanwhile, such as receiving a list
// of a million keys, is not taken for the server's: the program starts itself with probeArg and the address of a member.
const probeArg = "probe"

const (
	probeEvery = time.Millisecond
	probeLead  = 300 * time.Millisecond // the probes run so long before and after
	probeCall  = time.Minute            // a probe's request may take so long
)

// probes is the running process. It ends when its standard input does.
type probes struct {
	cmd  *exec.Cmd
	stop io.Closer
	out  *bufio.Reader
}

// startProbes returns when every probe has had an answer.
func startProbes(ctx context.Context, endpoint string) (*probes, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, probeArg, endpoint)
	cmd.Stderr = os.Stderr
	stop, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the probes: %w", err)
	}
	p := &probes{cmd: cmd, stop: stop, out: bufio.NewReader(out)}
	if _, err := p.out.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for the probes: %w", err), p.abandon())
	}
	return p, nil
}

// end asks for the gaps: one that has not ended is the longest of all.
func (p *probes) end() (c calmed, err error) {
	if err := p.stop.Close(); err != nil {
		return c, err
	}
	_, err = fmt.Fscan(p.out, &c.put, &c.get, &c.own)
	return c, errors.Join(err, p.cmd.Wait())
}

// abandon ends the process without a result.
func (p *probes) abandon() error { return errors.Join(p.stop.Close(), p.cmd.Wait()) }

// probeMain is the process: it says when all probes have had an answer, and the longest gaps in ms when in ends.
func probeMain(ctx context.Context, endpoint string, in io.Reader, out io.Writer) (err error) {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	value := string(make([]byte, 256))
	all := []*probe{
		startProbe(ctx, func(ctx context.Context) error { _, err := c.Put(ctx, "probe", value); return err }),
		startProbe(ctx, func(ctx context.Context) error { _, err := c.Get(ctx, "probe"); return err }),
		startProbe(ctx, func(context.Context) error { return nil }),
	}
	for _, p := range all {
		select {
		case <-p.begun:
		case <-p.done:
			return p.err
		}
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	for _, p := range all {
		longest, failed := p.end()
		if failed != nil {
			return failed
		}
		if _, err := fmt.Fprintln(out, float64(longest.Microseconds())/1000); err != nil {
			return err
		}
	}
	return nil
}

// probe does one thing a millisecond, each after the answer to the one before.
type probe struct {
	begun, stop, done chan struct{}
	longest           time.Duration // between two answers
	err               error
}

func startProbe(ctx context.Context, do func(context.Context) error) *probe {
	p := &probe{begun: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.run(ctx, do)
	}()
	return p
}

func (p *probe) run(ctx context.Context, do func(context.Context) error) {
	every := time.NewTicker(probeEvery)
	defer every.Stop()
	var last time.Time // zero: the first answer opens the connection
	for {
		select {
		case <-p.stop:
			return
		case <-every.C:
		}
		callCtx, cancel := context.WithTimeout(ctx, probeCall)
		p.err = do(callCtx)
		cancel()
		if p.err != nil {
			return
		}
		now := time.Now()
		if last.IsZero() {
			close(p.begun)
		} else {
			p.longest = max(p.longest, now.Sub(last))
		}
		last = now
	}
}

// end waits for the request under way.
func (p *probe) end() (longest time.Duration, err error) {
	close(p.stop)
	<-p.done
	return p.longest, p.err
}
