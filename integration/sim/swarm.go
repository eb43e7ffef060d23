package sim

import "math/rand/v2"

// swarm is what can go wrong in one life of a cluster. Each fault is on in some
// seeds and off in others, at rates that differ widely: faults that are all on
// hide each other, and many bugs need one to be frequent and another absent.
type swarm struct {
	// The network, per message.
	loss, repeat float64
	late         []float64 // shares of messages that are overtaken, one drawn per weather
	cuts         float64   // share of weathers with one-way cuts
	islands      float64   // share of weathers that split the cluster in two

	// Crashes: chances per occasion.
	disaster   float64 // per step
	power      float64 // share of crashes in which unsynced writes are lost
	atWrite    float64 // per write to the log: at one of its file operations
	afterVote  float64 // right after a vote or the question for one was sent
	afterWrite float64 // right after anything was written and answered
	inSnapshot float64 // while a snapshot from the leader is written or installed
	atStart    float64 // during a start
	haste      []float64

	ioError float64 // per write to the log, per purge and per start
	slow    float64 // share of weathers in which a member's disk is slow
	storm   float64 // share of weathers in which time is short for all
	stall   float64 // chance that a goroutine does not get on, per occasion
	drift   float64 // how much faster or slower clocks may run

	members  float64 // membership changes, per step
	transfer float64 // of leadership, per step
	proposes float64 // per step
	bytesMax int     // of a value
}

// drawSwarm chooses the faults of a seed.
func drawSwarm(rng *rand.Rand) swarm {
	// on is 0 in one seed of two.
	on := func(rates ...float64) float64 {
		if rng.IntN(2) == 0 {
			return 0
		}
		return pick(rng, rates...)
	}
	w := swarm{
		loss: on(0.01, 0.05, 0.2), repeat: on(0.03, 0.2), cuts: on(0.2, 0.6), islands: on(0.2, 0.6),
		disaster: on(0.0003, 0.001, 0.004), power: pick(rng, 0.3, 0.7, 1),
		atWrite: on(0.002, 0.01, 0.05), afterVote: on(0.05, 0.2, 0.5), afterWrite: on(0.002, 0.02),
		inSnapshot: on(0.05, 0.3), atStart: on(0.05, 0.2),
		ioError: on(0.001, 0.01), slow: on(0.2, 0.5), storm: on(0.2, 0.5), stall: on(0.05, 0.3), drift: on(0.01, 0.1),
		members: pick(rng, 0.001, 0.01, 0.03), transfer: on(0.002, 0.01), proposes: pick(rng, 0.03, 0.07, 0.15),
		bytesMax: pick(rng, 60, 60, 700, 2500),
	}
	w.late = pick(rng, []float64{0}, []float64{0.05, 0.3, 0.8})
	w.haste = pick(rng, []float64{1}, []float64{0.02, 0.1, 1}, []float64{0.3})
	return w
}
