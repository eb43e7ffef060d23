package v2

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// wire is a client of one connection that does no more than a request needs: a
// load of many must not spend more of the machine than the server.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte // of the last answer
}

func dialWire(ctx context.Context, address string) (*wire, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(waitMax))
	return &wire{conn: conn, in: bufio.NewReader(conn)}, nil
}

// ask sends a request, form as its body if there is one, and gives the status of
// the answer; its body stays in w.body until the next.
func (w *wire) ask(method, path, form string) (status int, err error) {
	w.out = append(w.out[:0], method...)
	w.out = append(append(append(w.out, ' '), path...), " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\n"...)
	if form != "" {
		w.out = append(w.out, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "...)
		w.out = append(strconv.AppendInt(w.out, int64(len(form)), 10), "\r\n"...)
	}
	w.out = append(append(w.out, "\r\n"...), form...)
	if _, err := w.conn.Write(w.out); err != nil {
		return 0, err
	}
	return w.read()
}

func (w *wire) read() (status int, err error) {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, fmt.Errorf("the answer begins with %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length := -1
	for {
		if line, err = w.in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		name, value, more := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(": "))
		if !more {
			break
		}
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("an answer %d without a length", status)
	}
	w.body = append(w.body[:0], make([]byte, length)...)
	_, err = io.ReadFull(w.in, w.body)
	return status, err
}
