package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// streamKind is one of the two streams in each direction.
type streamKind int

const (
	streamMessage streamKind = iota
	streamMsgApp
	streamKinds // their number
)

func (k streamKind) String() string { return [...]string{"message", "msgapp"}[k] }

func (k streamKind) encoder() encoder {
	if k == streamMsgApp {
		return &appEncoder{}
	}
	return messageEncoder{}
}

func (k streamKind) decoder(r io.Reader, from, self uint64) decoder {
	fr := frameReader{r: bufio.NewReaderSize(r, 32<<10)}
	if k == streamMsgApp {
		return &appDecoder{r: fr, from: from, to: self}
	}
	return &messageDecoder{r: fr}
}

// read keeps one stream from the peer dialed until the peer ends.
func (p *peer) read(kind streamKind) {
	var failed string // the last failure that was logged
	for p.ctx.Err() == nil {
		began := time.Now()
		err := p.readOnce(kind, func() { failed = "" })
		if p.ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != failed {
			failed = text
			p.t.log.Warn("stream from member is down", "member", hexID(p.id), "stream", kind.String(), "error", err)
		}
		wait(p.ctx, p.t.cfg.RetryEvery-time.Since(began))
	}
}

// readOnce dials, delivers what comes, and returns why that ended. up is called
// when the stream stands.
func (p *peer) readOnce(kind streamKind, up func()) error {
	at := p.urls.pick()
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.url+pathStream+kind.String()+"/"+hexID(p.t.cfg.Self), nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	p.t.identify(req.Header)
	req.Header.Set(headerTo, hexID(p.id))
	resp, err := p.t.streams.Do(req)
	if err != nil {
		p.urls.failed(at)
		return fmt.Errorf("dial stream: %w", err)
	}
	defer resp.Body.Close()
	if err := p.answer(resp, http.StatusOK); err != nil {
		p.urls.failed(at)
		return fmt.Errorf("dial stream: %w", err)
	}
	up()
	p.logChange(p.health.streamUp(), nil)
	p.t.log.Info("stream from member is up", "member", hexID(p.id), "stream", kind.String())
	err = p.deliver(kind.decoder(resp.Body, p.id, p.t.cfg.Self))
	p.logChange(p.health.streamDown(), err)
	return err
}

// deliver hands the messages of one stream to the receiver until it breaks.
func (p *peer) deliver(d decoder) error {
	for {
		m, n, err := d.next()
		p.count.receivedBytes.Add(uint64(n))
		if err != nil {
			p.count.receiveFailures.Add(1)
			return fmt.Errorf("read stream: %w", err)
		}
		if m == nil {
			continue
		}
		if err := p.t.receive(p.ctx, m); err != nil {
			p.count.receiveFailures.Add(1)
			p.t.log.Debug("message not taken", "member", hexID(p.id), "type", m.GetType().String(), "error", err)
		}
	}
}

// receive gives one message to the owner if it is for us and from a member.
func (t *Transport) receive(ctx context.Context, m *raftpb.Message) error {
	if err := t.admit(m); err != nil {
		return err
	}
	return t.cfg.Receiver.Receive(ctx, m)
}

// write serves one stream that the peer dialed, on the goroutine of its
// request, until the peer hangs up, another stream takes its place, a write
// fails or the peer ends.
func (p *peer) write(w http.ResponseWriter, r *http.Request, kind streamKind) {
	q := p.out[kind]
	session := q.open()
	if p.ctx.Err() != nil {
		q.expel()
	}
	out := streamWriter{peer: p, encoder: kind.encoder(), to: w, control: http.NewResponseController(w)}
	unblock := context.AfterFunc(p.ctx, out.abort)
	defer unblock()
	p.t.log.Info("stream to member is up", "member", hexID(p.id), "stream", kind.String())
	err := out.run(r.Context(), q, session)
	if !q.close(session) {
		return // replaced, or the peer ended: nothing that was queued is lost by this stream
	}
	p.t.log.Warn("stream to member is down", "member", hexID(p.id), "stream", kind.String(), "error", err)
	p.lost(0)
}

// streamWriter encodes and writes one stream; one goroutine.
type streamWriter struct {
	*peer
	encoder encoder
	to      http.ResponseWriter
	control *http.ResponseController
	buf     []byte
}

// run flushes once per drain of the queue, and sends a heartbeat after a third
// of the time in which the reader gives up.
func (s *streamWriter) run(ctx context.Context, q *queue, session *session) error {
	every := s.t.cfg.ReadTimeout / 3
	idle := time.NewTimer(every)
	defer idle.Stop()
	if err := s.flush(nil); err != nil { // the header
		return err
	}
	for {
		var err error
		select {
		case <-session.replaced:
			return nil
		case <-ctx.Done():
			return errHungUp
		case <-idle.C:
			err = s.flush(s.encoder.heartbeat(s.buf[:0]))
		case <-session.wake:
			err = s.batch(q.drain(session), q)
		}
		if err != nil {
			return err
		}
		idle.Reset(every)
	}
}

// batch writes messages and flushes once.
func (s *streamWriter) batch(msgs []*raftpb.Message, q *queue) error {
	if len(msgs) == 0 {
		return nil
	}
	defer q.recycle(msgs)
	buf := s.buf[:0]
	for i, m := range msgs {
		var err error
		if buf, err = s.encoder.message(buf, m); err != nil {
			s.t.log.Error("message not sent", "member", hexID(s.id), "type", m.GetType().String(), "error", err)
			s.lost(1)
			continue
		}
		if len(buf) < keptBufferMax {
			continue
		}
		if err := s.write(buf); err != nil {
			s.count.sendFailures.Add(uint64(len(msgs) - i))
			return err
		}
		buf = buf[:0]
	}
	if err := s.flush(buf); err != nil {
		s.count.sendFailures.Add(1)
		return err
	}
	if s.buf = buf[:0]; cap(buf) > 2*keptBufferMax {
		s.buf = nil
	}
	return nil
}

// write gives buf to the connection, in pieces that each must go through in
// WriteTimeout.
func (s *streamWriter) write(buf []byte) error {
	for len(buf) > 0 {
		piece := buf[:min(len(buf), keptBufferMax)]
		if err := s.control.SetWriteDeadline(time.Now().Add(s.t.cfg.WriteTimeout)); err != nil {
			return fmt.Errorf("set write deadline: %w", err)
		}
		n, err := s.to.Write(piece)
		s.count.sentBytes.Add(uint64(n))
		if err != nil {
			return fmt.Errorf("write stream: %w", err)
		}
		buf = buf[len(piece):]
	}
	return nil
}

func (s *streamWriter) flush(buf []byte) error {
	if err := s.write(buf); err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(s.t.cfg.WriteTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	if err := s.control.Flush(); err != nil {
		return fmt.Errorf("flush stream: %w", err)
	}
	return nil
}

// abort ends a write that hangs. Safe beside any write.
func (s *streamWriter) abort() { _ = s.control.SetWriteDeadline(time.Unix(1, 0)) }

var errHungUp = errors.New("peer: the member hung up")

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
