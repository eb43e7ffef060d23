package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvorum/kvorum/mvcc"
)

// Watches observes what watch streams send.
type Watches struct {
	events, perEvent, control, progress prometheus.Observer
}

func newWatches(s *Set) *Watches {
	seconds := func(name, help string) prometheus.Observer {
		return s.histogram("etcd_debugging_server_watch_send_loop_"+name+"_seconds", help, 0.001, 14)
	}
	return &Watches{
		events:   seconds("watch_stream_duration", "Seconds that sending a batch of events took."),
		perEvent: seconds("watch_stream_duration_per_event", "Seconds that sending a batch of events took, divided by the events in it."),
		control:  seconds("control_stream_duration", "Seconds that sending an answer about a watcher took."),
		progress: seconds("progress_duration", "Seconds that sending notices of progress took."),
	}
}

// Sent observes one batch; it is an api.WatchObserver.
func (w *Watches) Sent(kind mvcc.WatchBatchKind, events int, took time.Duration) {
	switch kind {
	case mvcc.WatchEvents:
		w.events.Observe(took.Seconds())
		w.perEvent.Observe(took.Seconds() / float64(max(1, events)))
	case mvcc.WatchCreated, mvcc.WatchCompacted, mvcc.WatchReply:
		w.control.Observe(took.Seconds())
	case mvcc.WatchProgress, mvcc.WatchIdle:
		w.progress.Observe(took.Seconds())
	}
}
