package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/kvorum/kvorum/internal/crash"
	"go.etcd.io/raft/v3/raftpb"
)

// replyRate is how fast a receiver is taken to be at the least when it makes a
// database durable after the last byte was sent.
const replyRate = 4 << 20 // bytes per second

// SendSnapshot sends a MsgSnap and the database that it describes, and returns
// at once. It owns body from now on and closes it, at times while a Read is
// under way. The body must give exactly size bytes. Receiver.SnapshotSent tells the outcome, once. At most one
// snapshot is under way to a member; a second one fails.
func (t *Transport) SendSnapshot(m *raftpb.Message, body io.ReadCloser, size int64) {
	id := m.GetTo()
	p := t.peer(id)
	if p == nil || !p.sending.CompareAndSwap(false, true) {
		t.log.Warn("snapshot not sent: member unknown, or one is under way", "member", hexID(id))
		body.Close()
		t.reports.snapshotSent(id, false)
		return
	}
	if !t.enter() {
		p.sending.Store(false)
		body.Close()
		return
	}
	go func() {
		defer t.work.Done()
		p.sendSnapshot(m, body, size)
	}()
}

func (p *peer) sendSnapshot(m *raftpb.Message, body io.ReadCloser, size int64) {
	p.count.snapshotsSendInflight.Add(1)
	began := time.Now()
	p.t.log.Info("sending snapshot", "member", hexID(p.id), "index", m.GetSnapshot().GetMetadata().GetIndex(), "bytes", size)
	err := p.postSnapshot(m, body, size)
	took := time.Since(began)
	p.count.snapshotsSendInflight.Add(-1)
	p.sending.Store(false)
	if p.t.cfg.Observer != nil {
		p.t.cfg.Observer.SnapshotSend(p.id, took, err)
	}
	if err != nil {
		p.count.snapshotSendFailures.Add(1)
		p.t.log.Warn("snapshot not sent", "member", hexID(p.id), "took", took, "error", err)
		p.lost(1)
	} else {
		p.count.snapshotsSent.Add(1)
		p.t.log.Info("snapshot sent", "member", hexID(p.id), "took", took)
	}
	p.t.reports.snapshotSent(p.id, err == nil)
}

func (p *peer) postSnapshot(m *raftpb.Message, db io.ReadCloser, size int64) error {
	head, err := appendSized(nil, m)
	if err != nil {
		db.Close()
		return err
	}
	if len(head) > snapMessageMax {
		db.Close()
		return fmt.Errorf("snapshot message: %w", ErrTooLarge)
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	body := &snapshotBody{
		Reader: io.MultiReader(bytes.NewReader(head), &exactReader{r: db, left: size}), db: db,
		stall: p.t.cfg.StallTimeout, reply: p.t.cfg.StallTimeout + time.Duration(size/replyRate)*time.Second,
		sent: &p.count.sentBytes,
	}
	body.watchdog = time.AfterFunc(body.stall, func() { cancel(errStalled) })
	defer body.watchdog.Stop()
	// The HTTP client does not return while it waits for the source.
	defer context.AfterFunc(ctx, func() { body.Close() })()
	at := p.urls.pick()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.url+pathSnapshot, body)
	if err != nil {
		db.Close()
		return fmt.Errorf("make request: %w", err)
	}
	req.ContentLength = int64(len(head)) + size
	req.Header.Set("Content-Type", "application/octet-stream")
	err = p.exchange(req, at)
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w: %w", errStalled, err)
	}
	return err
}

var (
	errStalled   = errors.New("peer: snapshot made no progress")
	errWrongType = errors.New("wrong raft message type")
	errWrongSize = errors.New("peer: database is not of the announced size")
)

// snapshotBody is the body of a request. Each read by the HTTP client is
// progress, and pushes the watchdog back.
type snapshotBody struct {
	io.Reader
	db           io.Closer
	stall, reply time.Duration
	watchdog     *time.Timer
	sent         interface{ Add(uint64) uint64 }
	closing      sync.Once
}

func (b *snapshotBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.sent.Add(uint64(n))
	if err == io.EOF {
		b.watchdog.Reset(b.reply)
	} else {
		b.watchdog.Reset(b.stall)
	}
	return n, err
}

func (b *snapshotBody) Close() error {
	var err error
	b.closing.Do(func() { err = b.db.Close() })
	return err
}

// exactReader fails when the database is shorter or longer than was announced.
// It looks beyond the end before it gives the last bytes away: a receiver that
// has them all takes the database for complete.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if e.left == 0 && err == nil {
		var more int
		if more, err = io.ReadFull(e.r, make([]byte, 1)); more > 0 {
			return 0, errWrongSize
		}
	}
	if e.left < 0 || (err == io.EOF && e.left > 0) {
		return 0, errWrongSize
	}
	return n, err
}

// serveSnapshot receives a MsgSnap and a database.
func (t *Transport) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	if !t.compatible(w, r, http.MethodPost) {
		return
	}
	t.rememberPoster(r.Header)
	body := newTimedBody(w, r, t.cfg.StallTimeout)
	defer body.done()
	m, n, err := decodeSnapshotHead(body)
	if err != nil {
		t.countReceived(headerID(r.Header), n, err)
		t.log.Warn("snapshot message not read", "from", r.Header.Get(headerFrom), "error", err)
		http.Error(w, headProblem(err), http.StatusBadRequest)
		return
	}
	if err := t.admit(m); err != nil {
		t.countReceived(m.GetFrom(), n, err)
		refuse(w, err)
		return
	}
	if !t.beginSnapshot(m.GetFrom()) {
		http.Error(w, "too many snapshots are being received", http.StatusServiceUnavailable)
		return
	}
	began := time.Now()
	status, bytesIn, err := t.takeSnapshot(r.Context(), m, body)
	t.endSnapshot(m.GetFrom(), n+int(bytesIn), err)
	if t.cfg.Observer != nil {
		t.cfg.Observer.SnapshotReceive(m.GetFrom(), time.Since(began), err)
	}
	log := t.log.With("member", hexID(m.GetFrom()), "index", snapshotIndex(m), "bytes", bytesIn, "took", time.Since(began))
	if err != nil {
		log.Warn("snapshot not received", "error", err)
		http.Error(w, err.Error(), status)
		return
	}
	log.Info("snapshot received")
	w.WriteHeader(http.StatusNoContent)
}

func snapshotIndex(m *raftpb.Message) uint64 { return m.GetSnapshot().GetMetadata().GetIndex() }

// decodeSnapshotHead reads what comes before the database.
func decodeSnapshotHead(r io.Reader) (*raftpb.Message, int, error) {
	fr := frameReader{r: r}
	m := &raftpb.Message{}
	if err := fr.sized(m, snapMessageMax); err != nil {
		return nil, fr.n, err
	}
	if m.GetType() != raftpb.MsgSnap || snapshotIndex(m) == 0 {
		return nil, fr.n, errWrongType
	}
	return m, fr.n, nil
}

// headProblem is the answer's text for an error of decodeSnapshotHead.
func headProblem(err error) string {
	if errors.Is(err, errWrongType) {
		return err.Error()
	}
	return fmt.Sprintf("failed to decode raft message (%v)", err)
}

// beginSnapshot counts a transfer in, unless there are too many.
func (t *Transport) beginSnapshot(from uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	total := 0
	for _, n := range t.snapshotsIn {
		total += n
	}
	if total >= t.cfg.SnapshotsInMax {
		return false
	}
	t.snapshotsIn[from]++
	if p := t.peers[from]; p != nil {
		p.count.snapshotsInInflight.Store(int64(t.snapshotsIn[from]))
	}
	return true
}

func (t *Transport) endSnapshot(from uint64, bytesIn int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.snapshotsIn[from]--
	left := t.snapshotsIn[from]
	if left == 0 {
		delete(t.snapshotsIn, from)
	}
	p := t.peers[from]
	if p == nil {
		return
	}
	p.count.snapshotsInInflight.Store(int64(left))
	p.count.receivedBytes.Add(uint64(bytesIn))
	if err != nil {
		p.count.snapshotRecvFailures.Add(1)
		p.count.receiveFailures.Add(1)
	} else {
		p.count.snapshotsReceived.Add(1)
	}
}

// takeSnapshot makes the database durable and hands it over. status is for the
// answer when err is not nil.
func (t *Transport) takeSnapshot(ctx context.Context, m *raftpb.Message, body timedBody) (status int, n int64, err error) {
	path, n, err := t.saveDB(snapshotIndex(m), body)
	body.done()
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return http.StatusInsufficientStorage, n, fmt.Errorf("no space for the snapshot: %w", err)
	case err != nil:
		return http.StatusInternalServerError, n, fmt.Errorf("save the snapshot: %w", err)
	}
	if err := t.cfg.Receiver.ReceiveSnapshot(ctx, m, path); err != nil {
		return http.StatusInternalServerError, n, fmt.Errorf("take the snapshot: %w", err)
	}
	return 0, n, nil
}

// saveDB writes a database beside its final name, makes it durable, and gives
// it that name. A partial file is deleted.
func (t *Transport) saveDB(index uint64, from io.Reader) (path string, n int64, err error) {
	began, dir := time.Now(), t.cfg.SnapDir
	f, err := os.CreateTemp(dir, "tmp*") // mode 0600
	if err != nil {
		return "", 0, fmt.Errorf("create temporary file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name()) // a leftover is deleted at the next start
		}
	}()
	if n, err = io.CopyBuffer(writerOnly{f}, from, make([]byte, 256<<10)); err != nil {
		return "", n, fmt.Errorf("write database: %w", err)
	}
	crash.Here("peer/before-snapshot-sync")
	syncing := time.Now()
	if err = f.Sync(); err != nil {
		return "", n, fmt.Errorf("sync database: %w", err)
	}
	synced := time.Since(syncing)
	if err = f.Close(); err != nil {
		return "", n, fmt.Errorf("close database: %w", err)
	}
	path = filepath.Join(dir, fmt.Sprintf("%016x.snap.db", index))
	crash.Here("peer/before-snapshot-rename")
	if err = os.Rename(f.Name(), path); err != nil {
		return "", n, fmt.Errorf("rename database: %w", err)
	}
	crash.Here("peer/before-snapshot-dir-sync")
	if err = syncDir(dir); err != nil {
		return "", n, err
	}
	if t.cfg.Observer != nil {
		t.cfg.Observer.SnapshotSaved(time.Since(began), synced)
	}
	return path, n, nil
}

// writerOnly hides File.ReadFrom, which would ignore the buffer.
type writerOnly struct{ io.Writer }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open snapshot directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync snapshot directory: %w", err)
	}
	return nil
}
