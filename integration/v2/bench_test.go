package v2

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kvorum/kvorum/integration/process"
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
			base := start(b, o()).Members[0].ClientURL + "/v2/keys/bench/"
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
			var next atomic.Int64
			set := func() (*http.Request, error) {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodPut, base+fmt.Sprint(next.Add(1)%1000), strings.NewReader("value=0123456789abcdef"))
				if err == nil {
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
				return r, err
			}
			b.Run("set", func(b *testing.B) { hammer(b, client, set) })
			b.Run("get", func(b *testing.B) {
				hammer(b, client, func() (*http.Request, error) {
					return http.NewRequestWithContext(b.Context(), http.MethodGet, base+"1", nil)
				})
			})
		})
	}
}

func hammer(b *testing.B, client *http.Client, request func() (*http.Request, error)) {
	b.SetParallelism(benchClients)
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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
