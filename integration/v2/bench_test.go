package v2

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kvorum/kvorum/internal/process"
)

// benchClients is how many clients work at once, for each processor.
const benchClients = 32

// BenchmarkAgainstEtcd measures set and get of Kvorum and of etcd 3.4, each
// alone on the machine:
//
//	go test -run '^$' -bench Etcd ./integration/v2
func BenchmarkAgainstEtcd(b *testing.B) {
	for name, o := range map[string]func() process.Options{
		"kvorum": func() process.Options { return process.Options{Binary: kvorumBinary(b), Size: 1} },
		"etcd": func() process.Options {
			return process.Options{Binary: debianEtcd(b), Size: 1, Args: []string{"--enable-v2"}}
		},
	} {
		b.Run(name, func(b *testing.B) {
			m := start(b, o()).Members[0]
			base := m.ClientURL + "/v2/keys/bench/"
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
			var next atomic.Int64
			set := func() (*http.Request, error) {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodPut, base+fmt.Sprint(next.Add(1)%1000), strings.NewReader("value=0123456789abcdef"))
				if err == nil {
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
				return r, err
			}
			b.Run("set", func(b *testing.B) { hammer(b, client, m.PID(), set) })
			b.Run("get", func(b *testing.B) {
				hammer(b, client, m.PID(), func() (*http.Request, error) {
					return http.NewRequestWithContext(b.Context(), http.MethodGet, base+"1", nil)
				})
			})
		})
	}
}

// ticksPerSecond is the unit of /proc on Linux.
const ticksPerSecond = 100

// cpuSeconds is the time that a process has spent on processors.
func cpuSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // not on Linux
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] { // user and system
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / ticksPerSecond
}

// hammer sends requests from many clients at once. What the server itself
// spends on one is of more use on a busy machine than how many there were.
func hammer(b *testing.B, client *http.Client, pid int, request func() (*http.Request, error)) {
	b.SetParallelism(benchClients)
	before := cpuSeconds(b, pid)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r, err := request()
			if err != nil {
				b.Error(err)
				return
			}
			answer, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode >= 300 {
				b.Errorf("answer %s: %v", answer.Status, err)
			}
			answer.Body.Close()
		}
	})
	b.ReportMetric((cpuSeconds(b, pid)-before)*1e6/float64(b.N), "server-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
