// Package trace tells an OpenTelemetry collector how requests spend their time:
// a span for each request, within it one for what it waits for (propose, read
// barrier), and within that one for applying its command.
//
// A request is traced when its client says so (W3C trace context), or by chance
// at a rate. Spans wait in a bounded queue; when the collector is slow or dead
// they are dropped, and requests do not notice. Spans name methods, sizes and
// indexes, never keys or values.
//
// Off is a nil *Tracer, whose methods do nothing.
package trace
