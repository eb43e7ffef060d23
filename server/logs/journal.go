package logs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// journalSocket is where systemd's journal takes datagrams in its native form:
// fields NAME=value, one on a line (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
const journalSocket = "/run/systemd/journal/socket"

// journalLineBytesMax keeps a line within one datagram; what is longer is cut.
const journalLineBytesMax = 64 << 10

// journal is the sink of systemd's journal. A line is the message; its level is
// the priority.
type journal struct {
	conn net.Conn
	name string // SYSLOG_IDENTIFIER
}

func dialJournal(socket, name string) (journal, error) {
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return journal{}, fmt.Errorf("can't find journal (%w)", err)
	}
	return journal{conn, name}, nil
}

func (j journal) writeLine(level slog.Level, line []byte) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nMESSAGE\n", priority(level), j.name)
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = line[:min(len(line), journalLineBytesMax)]
	_ = binary.Write(&b, binary.LittleEndian, uint64(len(line))) // the buffer takes all
	b.Write(line)
	b.WriteByte('\n')
	_, err := j.conn.Write(b.Bytes())
	return err
}

// priority is syslog's.
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// stderrIsJournal tells whether stderr is the stream that systemd named, as
// device:inode, when it connected the process to the journal.
func stderrIsJournal(stream string) bool {
	info, err := os.Stderr.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	device, inode, two := strings.Cut(stream, ":")
	return ok && two && device == strconv.FormatUint(st.Dev, 10) && inode == strconv.FormatUint(st.Ino, 10)
}
