package mvcc

import (
	"time"

	bolt "go.etcd.io/bbolt"
)

// Step names what Options.Observe is told of.
type Step uint8

// The steps.
const (
	StepCommit       Step = iota // one flush, with what it waits for
	StepRebalance                // of its transaction: merging pages that have become small
	StepSpill                    // of its transaction: splitting pages that have grown
	StepWrite                    // of its transaction: writing the pages
	StepCompactIndex             // one slice of a compaction, in the index: readers go on, the applier waits
	StepCompactFile              // and in the file: flushes wait
)

// observe reports a step that began at a time.
func (s *Store) observe(step Step, began time.Time) {
	if s.opts.Observe != nil {
		s.opts.Observe(step, time.Since(began))
	}
}

// observeCommit reports a commit and its parts.
func (s *Store) observeCommit(took time.Duration, tx bolt.TxStats) {
	if s.opts.Observe == nil {
		return
	}
	s.opts.Observe(StepCommit, took)
	s.opts.Observe(StepRebalance, tx.GetRebalanceTime())
	s.opts.Observe(StepSpill, tx.GetSpillTime())
	s.opts.Observe(StepWrite, tx.GetWriteTime())
}
