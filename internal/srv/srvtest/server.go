// Package srvtest is a name server for tests. It answers on a free port of the
// loopback interface from a fixed list of records, and promises to be gone when
// the test ends.
package srvtest

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Start serves the records, each a line as in a zone file, and returns a
// resolver that asks it alone.
func Start(t *testing.T, records ...string) *net.Resolver {
	t.Helper()
	zone := map[string][]dns.RR{}
	for _, text := range records {
		r, err := dns.NewRR(text)
		if err != nil {
			t.Fatalf("record %q: %v", text, err)
		}
		zone[strings.ToLower(r.Header().Name)] = append(zone[strings.ToLower(r.Header().Name)], r)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(answer(zone, q)) })}
	done := make(chan error, 1)
	ready := make(chan struct{})
	s.NotifyStartedFunc = func() { close(ready) }
	go func() { done <- s.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() {
		_ = s.Shutdown()
		if err := <-done; err != nil {
			t.Errorf("name server: %v", err)
		}
	})
	address := conn.LocalAddr().String()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", address)
	}}
}

func answer(zone map[string][]dns.RR, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	found, known := zone[strings.ToLower(q.Question[0].Name)]
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	for _, r := range found {
		if r.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, r)
		}
	}
	return m
}
