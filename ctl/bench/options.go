package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Kind names a load.
type Kind string

// The loads.
const (
	Put            Kind = "put"
	Range          Kind = "range"
	Txn            Kind = "txn"
	Mixed          Kind = "mixed"
	Watch          Kind = "watch"
	WatchLatency   Kind = "watch-latency"
	LeaseKeepAlive Kind = "lease-keepalive"
)

// Options says where the load goes, what it is and how hard it presses.
type Options struct {
	Kind      Kind
	Endpoints []string
	TLS       *tls.Config // nil: no TLS
	User      string      // "" = no authentication
	Password  string

	Clients  int     // calls in flight at most
	Conns    int     // TCP connections, spread over the endpoints
	Rate     float64 // operations per second; 0 = closed loop
	Total    int64   // operations; 0 = until Duration
	Duration time.Duration
	CallMax  time.Duration // time limit of one call

	Prefix     string
	KeySize    int
	ValSize    int
	KeySpace   int64 // number of different keys
	Sequential bool  // keys in turn, not at random
	Fill       bool  // write the whole key space before the measurement
	Seed       uint64

	Serializable bool
	List         bool // range: the whole key space instead of one key
	Limit        int64
	CountOnly    bool
	KeysOnly     bool

	TxnPuts, TxnRanges, TxnCompares int
	ReadRatio                       float64 // mixed: share of reads

	Watchers int // in all, spread over Streams
	Streams  int // watch streams, spread over Conns
	Leases   int // lease-keepalive: leases in all
}

// Defaults are the options of a load when the user says nothing.
func Defaults(kind Kind) Options {
	o := Options{
		Kind: kind, Endpoints: []string{"127.0.0.1:2379"},
		Clients: 1, Conns: 1, Total: 10000, CallMax: 30 * time.Second,
		Prefix: "bench/", KeySize: 24, ValSize: 128, KeySpace: 10000, Seed: 1,
		TxnPuts: 1, TxnRanges: 1, TxnCompares: 1, ReadRatio: 0.8,
		Watchers: 100, Streams: 10, Leases: 100,
	}
	switch kind {
	case Range, Mixed:
		o.Fill = true
	case Watch, WatchLatency:
		o.KeySpace = 1
	}
	if kind == WatchLatency {
		o.Total, o.Rate, o.Watchers, o.Streams = 1000, 100, 1, 1
	}
	return o
}

// check says what is wrong with the options, in the words of the flags.
func (o *Options) check() error {
	switch {
	case len(o.Endpoints) == 0:
		return errors.New("--endpoints is empty")
	case o.Clients < 1 || o.Conns < 1:
		return errors.New("--clients and --conns must be at least 1")
	case o.Total < 0 || o.Duration < 0 || o.Rate < 0 || o.ValSize < 0 || o.Limit < 0:
		return errors.New("--total, --duration, --rate, --val-size and --limit cannot be negative")
	case o.Total == 0 && o.Duration == 0:
		return errors.New("give --total or --duration, or the load never ends")
	case o.KeySpace < 1:
		return errors.New("--key-space-size must be at least 1")
	case o.KeySize < len(o.Prefix)+keyDigits:
		return fmt.Errorf("--key-size must be at least %d: the prefix %q and %d digits",
			len(o.Prefix)+keyDigits, o.Prefix, keyDigits)
	case o.ReadRatio < 0 || o.ReadRatio > 1:
		return errors.New("--read-ratio must be between 0 and 1")
	case o.Kind == Txn && (o.TxnPuts < 0 || o.TxnRanges < 0 || o.TxnCompares < 0 || o.TxnPuts+o.TxnRanges == 0):
		return errors.New("--txn-puts and --txn-ranges: a txn needs at least one operation")
	case o.watches() && (o.Watchers < 1 || o.Streams < 1 || o.Streams > o.Watchers):
		return errors.New("--watchers must be at least 1, and --streams between 1 and --watchers")
	case o.watches() && o.KeySpace > int64(o.Watchers):
		return errors.New("--key-space-size cannot exceed --watchers: every key needs a watcher")
	case o.Kind == LeaseKeepAlive && o.Leases < o.Clients:
		return errors.New("--leases must be at least --clients")
	}
	return nil
}

// watches tells whether operations are events.
func (o *Options) watches() bool { return o.Kind == Watch || o.Kind == WatchLatency }
