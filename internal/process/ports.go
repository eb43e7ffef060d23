package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
)

// Ports are taken from below those that the system gives to outgoing
// connections: one of these could take the port of a server that is down for a
// moment.
const portMin, portMax = 11000, 32000

// FreePorts returns n TCP ports of 127.0.0.1, all different, that nobody listens on.
// They belong to this process until it ends: another process that asks does
// not get them, whether a server listens on them or not.
func FreePorts(n int) ([]int, error) {
	var ports []int
	const triesMax = 1000
	for range triesMax {
		if len(ports) == n {
			return ports, nil
		}
		port := portMin + rand.IntN(portMax-portMin)
		if reserve(port) && free(port) {
			ports = append(ports, port)
		}
	}
	return nil, errors.New("find a free port: all are taken")
}

// reserve binds the abstract unix socket that stands for the port. The kernel
// frees it when the process ends, however it ends.
func reserve(port int) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@kvorum-port-%d", port)}); err != nil {
		_ = syscall.Close(fd)
		return false
	}
	return true
}

// free reports whether nobody listens on the port.
func free(port int) bool {
	l, err := net.Listen("tcp", Address(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// Address is the port's host:port.
func Address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
