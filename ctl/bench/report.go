package bench

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what one run measured. Latencies are milliseconds.
type Report struct {
	Load         string           `json:"load"`
	Endpoints    []string         `json:"endpoints"`
	Clients      int              `json:"clients"`
	Conns        int              `json:"conns"`
	Rate         float64          `json:"rate,omitempty"` // asked for; 0 = closed loop
	KeySize      int              `json:"key_size"`
	ValSize      int              `json:"val_size"`
	KeySpaceSize int64            `json:"key_space_size"`
	Started      time.Time        `json:"started"`
	Seconds      float64          `json:"seconds"`
	Operations   int64            `json:"operations"` // answered
	Throughput   float64          `json:"throughput"` // answered operations per second
	Items        int64            `json:"items"`      // key-value pairs, operation answers or events received
	Bytes        int64            `json:"bytes"`      // received
	Latency      Latency          `json:"latency"`
	Parts        []PartReport     `json:"parts,omitempty"` // when the load has several kinds of operation
	Errors       map[string]int64 `json:"errors,omitempty"`
	Timeline     []Point          `json:"timeline"`
}

// PartReport is one kind of operation of a mixed load.
type PartReport struct {
	Name       string  `json:"name"`
	Operations int64   `json:"operations"`
	Latency    Latency `json:"latency"`
}

// Latency sums up a histogram, in milliseconds.
type Latency struct {
	Min    float64 `json:"min"`
	Mean   float64 `json:"mean"`
	StdDev float64 `json:"stddev"`
	P50    float64 `json:"p50"`
	P75    float64 `json:"p75"`
	P90    float64 `json:"p90"`
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
	P999   float64 `json:"p99_9"`
	P9999  float64 `json:"p99_99"`
	Max    float64 `json:"max"`
}

// Point is one slice of time; Seconds is its end.
type Point struct {
	Seconds    float64 `json:"seconds"`
	Operations int64   `json:"operations"`
	Throughput float64 `json:"throughput"`
	Errors     int64   `json:"errors,omitempty"`
	P50        float64 `json:"p50"`
	P99        float64 `json:"p99"`
	Max        float64 `json:"max"`
}

func newReport(o *Options, t *totals, parts []string, start time.Time, took time.Duration) *Report {
	all := newHistogram()
	r := &Report{
		Load: string(o.Kind), Endpoints: o.Endpoints, Clients: o.Clients, Conns: o.Conns, Rate: o.Rate,
		KeySize: o.KeySize, ValSize: o.ValSize, KeySpaceSize: o.KeySpace,
		Started: start.UTC(), Seconds: took.Seconds(), Items: t.items, Bytes: t.bytes, Timeline: t.points,
	}
	for i, h := range t.parts {
		all.Merge(h)
		if len(parts) > 1 {
			part := PartReport{Name: parts[i], Operations: h.TotalCount(), Latency: newLatency(h)}
			r.Parts = append(r.Parts, part)
		}
	}
	r.Operations, r.Latency = all.TotalCount(), newLatency(all)
	if took > 0 {
		r.Throughput = float64(r.Operations) / took.Seconds()
	}
	if len(t.fails) > 0 {
		r.Errors = t.fails
	}
	return r
}

func newLatency(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(q float64) float64 { return ms(h.ValueAtQuantile(q)) }
	return Latency{
		Min: ms(h.Min()), Mean: h.Mean() / 1000, StdDev: h.StdDev() / 1000,
		P50: at(50), P75: at(75), P90: at(90), P95: at(95), P99: at(99), P999: at(99.9), P9999: at(99.99),
		Max: ms(h.Max()),
	}
}

// Failed is how many operations failed.
func (r *Report) Failed() int64 {
	n := int64(0)
	for _, count := range r.Errors {
		n += count
	}
	return n
}

// Format is how results are written.
type Format string

// The formats of -w.
const (
	JSON  Format = "json"
	CSV   Format = "csv"
	Table Format = "table"
)

// parseFormat takes what the user gave to -w; the control tool's "simple" is a table here.
func parseFormat(text string) (Format, error) {
	switch text {
	case "", "simple", "table":
		return Table, nil
	case "json":
		return JSON, nil
	case "csv":
		return CSV, nil
	}
	return "", fmt.Errorf("%s is not an output format of bench: use json, csv or table", text)
}

// write prints the report.
func (r *Report) write(out io.Writer, f Format) error {
	switch f {
	case JSON:
		return json.NewEncoder(out).Encode(r)
	case CSV:
		return writeCSV(out, []*Report{r})
	}
	return r.writeTable(out)
}

// columns are the figures of a report that CSV has and that two reports are compared by.
func (r *Report) columns() (names []string, values []float64) {
	l := r.Latency
	return []string{
			"seconds", "operations", "failed", "throughput", "min_ms", "mean_ms", "p50_ms", "p75_ms", "p90_ms", "p95_ms",
			"p99_ms", "p99_9_ms", "p99_99_ms", "max_ms",
		}, []float64{
			r.Seconds, float64(r.Operations), float64(r.Failed()), r.Throughput, l.Min, l.Mean, l.P50, l.P75, l.P90, l.P95,
			l.P99, l.P999, l.P9999, l.Max,
		}
}

// writeCSV prints one line per report under one header.
func writeCSV(out io.Writer, reports []*Report) error {
	w := csv.NewWriter(out)
	for i, r := range reports {
		names, values := r.columns()
		if i == 0 {
			head := append([]string{"load", "endpoints", "clients", "conns", "rate", "key_size", "val_size"}, names...)
			if err := w.Write(head); err != nil {
				return err
			}
		}
		line := []string{
			r.Load, strings.Join(r.Endpoints, " "), strconv.Itoa(r.Clients), strconv.Itoa(r.Conns), number(r.Rate),
			strconv.Itoa(r.KeySize), strconv.Itoa(r.ValSize),
		}
		for _, v := range values {
			line = append(line, number(v))
		}
		if err := w.Write(line); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func (r *Report) writeTable(out io.Writer) error {
	t := table{{"", "operations", "per second", "mean ms", "p50", "p90", "p99", "p99.9", "max"}}
	row := func(name string, n int64, l Latency) {
		t = append(t, []string{
			name, strconv.FormatInt(n, 10), fmt.Sprintf("%.0f", r.perSecond(n)), figure(l.Mean),
			figure(l.P50), figure(l.P90), figure(l.P99), figure(l.P999), figure(l.Max),
		})
	}
	for _, p := range r.Parts {
		row(p.Name, p.Operations, p.Latency)
	}
	row(r.Load, r.Operations, r.Latency)
	if err := t.write(out); err != nil {
		return err
	}
	return r.writeErrors(out)
}

func (r *Report) perSecond(operations int64) float64 {
	return float64(operations) / max(r.Seconds, 1e-9)
}

func (r *Report) writeErrors(out io.Writer) error {
	texts := make([]string, 0, len(r.Errors))
	for text := range r.Errors {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	for _, text := range texts {
		if _, err := fmt.Fprintf(out, "failed %d times: %s\n", r.Errors[text], text); err != nil {
			return err
		}
	}
	return nil
}

// figure prints milliseconds with three significant digits.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
