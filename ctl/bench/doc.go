// Package bench is the load tool: `kvctl bench`.
//
// It promises figures that can be trusted:
//   - A closed load keeps --clients calls in flight; an open load (--rate) starts calls on a fixed timetable and measures
//     each from the moment it was due, so a server that stalls is charged for every call that had to wait
//     (no coordinated omission).
//   - Every call is counted: answered ones in an HdrHistogram of three digits from 1 µs to 60 s (slower ones count as
//     60 s), failed ones by their text.
//   - What is written before the measurement (keys to read, leases, watchers) is not measured.
//   - The tool itself is cheap: requests are reused, answers are scanned in place and never built as objects.
//
// Words: a load is what one run does; an operation is one call, or one event for the watch loads; a round is one run of a
// load against one cluster; a point is one slice of time on the page.
package bench
