package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Comparison is the same load against two clusters, in alternating rounds.
type Comparison struct {
	A      []*Report `json:"a"` // the clusters of --endpoints
	B      []*Report `json:"b"` // the cluster of --compare
	Ratios []Ratio   `json:"ratios"`
}

// Ratio compares the medians of one figure. Better tells which side is ahead: "a", "b" or "".
type Ratio struct {
	Figure string  `json:"figure"`
	A      float64 `json:"a"`
	B      float64 `json:"b"`
	Ratio  float64 `json:"ratio"` // B ÷ A; 0 when A is 0
	Better string  `json:"better"`
}

// Label is the figure's name as people read it.
func (r Ratio) Label() string {
	return strings.NewReplacer("_ms", " ms", "_", ".").Replace(r.Figure)
}

// Times is B ÷ A, or nothing when there is no such number.
func (r Ratio) Times() string {
	if r.A == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.Ratio)
}

// Compare runs rounds rounds on each side, A B, B A, A B …, so that neither profits from the machine's drift.
func Compare(ctx context.Context, a, b Options, rounds int, progress func(side string, round int) func(Point, time.Duration)) (*Comparison, error) {
	c := &Comparison{}
	sides := []struct {
		name    string
		options Options
		reports *[]*Report
	}{{"A", a, &c.A}, {"B", b, &c.B}}
	loads := make([]*Load, len(sides))
	for i, side := range sides {
		load, err := Prepare(ctx, side.options)
		if err != nil {
			return nil, fmt.Errorf("side %s: %w", side.name, err)
		}
		defer load.Close()
		loads[i] = load
	}
	for round := range rounds {
		for turn := range sides {
			i := (turn + round) % len(sides)
			report, err := loads[i].Run(ctx, progress(sides[i].name, round+1))
			if err != nil {
				return nil, fmt.Errorf("side %s, round %d: %w", sides[i].name, round+1, err)
			}
			*sides[i].reports = append(*sides[i].reports, report)
		}
	}
	c.Ratios = ratios(c.A, c.B)
	return c, nil
}

// ratios compares every figure of the reports by its median.
func ratios(a, b []*Report) []Ratio {
	names, _ := a[0].columns()
	var all []Ratio
	for i, name := range names {
		r := Ratio{Figure: name, A: median(a, i), B: median(b, i)}
		if r.A != 0 {
			r.Ratio = r.B / r.A
		}
		switch {
		case r.A == r.B || name == "operations" || name == "seconds":
		case (r.A > r.B) == (name == "throughput"):
			r.Better = "a"
		default:
			r.Better = "b"
		}
		all = append(all, r)
	}
	return all
}

// median of column i; of an even number of reports the mean of the middle two.
func median(reports []*Report, i int) float64 {
	values := make([]float64, 0, len(reports))
	for _, r := range reports {
		_, columns := r.columns()
		values = append(values, columns[i])
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// write prints the comparison.
func (c *Comparison) write(out io.Writer, f Format) error {
	switch f {
	case JSON:
		return json.NewEncoder(out).Encode(c)
	case CSV:
		return writeCSV(out, append(slices.Clone(c.A), c.B...))
	}
	a, b := strings.Join(c.A[0].Endpoints, " "), strings.Join(c.B[0].Endpoints, " ")
	t := table{{fmt.Sprintf("median of %d", len(c.A)), "A " + a, "B " + b, "B ÷ A", "better"}}
	for _, r := range c.Ratios {
		t = append(t, []string{r.Label(), figure(r.A), figure(r.B), r.Times(), strings.ToUpper(r.Better)})
	}
	if err := t.write(out); err != nil {
		return err
	}
	for _, r := range slices.Concat(c.A, c.B) {
		if err := r.writeErrors(out); err != nil {
			return err
		}
	}
	return nil
}
