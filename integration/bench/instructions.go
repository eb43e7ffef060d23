package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/internal/process"
)

// perfEvent is what is counted: instructions of the servers, in user mode and in the kernel.
const perfEvent = "instructions"

// canCount tells whether `perf stat` counts instructions on this machine; virtual machines often hide the counter.
func canCount(ctx context.Context) bool {
	text, err := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", perfEvent, "true").CombinedOutput()
	if err != nil {
		return false
	}
	_, err = parsePerf(text)
	return err == nil
}

// parsePerf finds the count in what `perf stat -x ,` prints: count,unit,event,…
func parsePerf(text []byte) (float64, error) {
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(strings.TrimSpace(line), ","); len(fields) > 2 && strings.HasPrefix(fields[2], perfEvent) {
			return strconv.ParseFloat(fields[0], 64)
		}
	}
	return 0, errors.New("perf stat printed no count")
}

// counting is a running `perf stat` on the processes of a cluster.
type counting struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func startCounting(ctx context.Context, c *process.Cluster) (*counting, error) {
	var pids []string
	for _, m := range c.Members {
		pids = append(pids, strconv.Itoa(m.PID()))
	}
	p := &counting{cmd: exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", perfEvent, "-p", strings.Join(pids, ","))} //nolint:gosec // our own arguments
	p.cmd.Stderr = &p.out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start perf stat: %w", err)
	}
	return p, nil
}

// end stops it, which makes it print.
func (p *counting) end() (float64, error) {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return 0, fmt.Errorf("end perf stat: %w", err)
	}
	_ = p.cmd.Wait() // it says that it was interrupted; what it printed counts
	return parsePerf(p.out.Bytes())
}
