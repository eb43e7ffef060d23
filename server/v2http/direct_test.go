package v2http

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// If this fails, clients that send nothing, or half a request, hold connections
// for ever, or lose what they have sent.
func TestSilentConnections(t *testing.T) {
	for _, sent := range []string{"", plainPut[:3], plainPut[:len(plainPut)-1]} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			began := time.Now()
			go func() { _, _ = io.WriteString(client, sent) }()
			left := new(Direct).Serve(t.Context(), server, nil)
			if string(left) != sent || time.Since(began) != directRequest {
				t.Errorf("of %q is left %q after %s", sent, left, time.Since(began))
			}
			_ = client.SetReadDeadline(time.Now().Add(time.Second))
			_, err := client.Read(make([]byte, 1))
			if closed := errors.Is(err, io.EOF); closed != (sent == "") {
				t.Errorf("after %q: %v", sent, err)
			}
		})
	}
}

// If this fails, a connection is closed between requests that come rarely, or
// never.
func TestIdleDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, server := net.Pipe()
		c := &directConn{Direct: new(Direct), Conn: server, second: 1}
		c.setDeadline(ofRequest)
		for range 3 {
			time.Sleep(directIdle / 16) // of the bubble's clock
			c.setDeadline(ofIdle)
		}
		began := time.Now()
		err := c.more()
		if waited := time.Since(began); err == nil || waited > directIdle || waited < directIdle*7/8 {
			t.Errorf("idle for %s: %v", waited, err)
		}
	})
}
