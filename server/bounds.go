package server

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// stallTimeout is how long a client may leave what it was sent untouched before
// the system ends the connection.
const stallTimeout = 2 * time.Minute

// endStalled has the system end a connection whose client reads no more: without
// it that client is waited for as long as its machine runs.
func endStalled(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { // without it nothing is worse than before
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stallTimeout.Milliseconds())) //nolint:gosec // a descriptor
	})
}

// unsentBytesMin is the least of the bound that is chosen by the memory.
const unsentBytesMin = 512 << 20

// unsentBytesMax is what answers that wait to be read may hold together.
func (c *Config) unsentBytesMax() int64 {
	if c.UnsentAnswerBytesMax > 0 {
		return c.UnsentAnswerBytesMax
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return unsentBytesMin
	}
	return max(unsentBytesMin, int64(info.Totalram)*int64(info.Unit)/8) //nolint:gosec // below 2^63
}
