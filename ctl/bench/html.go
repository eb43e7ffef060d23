package bench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

//go:embed page.html
var pageText string

// page is what the template shows.
type page struct {
	Title   string
	Rows    []pageRow
	Reports []*Report // one, or the rounds of both sides
	Ratios  []Ratio
	Names   []string // of the sides; empty unless compared
	Charts  []chart
}

// pageRow is a line of the table: a part of a load, or all of it.
type pageRow struct {
	Name       string
	Operations int64
	PerSecond  float64
	Latency    Latency
	Failed     string // only of all of it
}

// rows are the parts of a report, if there are several, and their sum.
func (r *Report) rows(name string) []pageRow {
	var all []pageRow
	for _, p := range r.Parts {
		all = append(all, pageRow{p.Name, p.Operations, r.perSecond(p.Operations), p.Latency, ""})
	}
	return append(all, pageRow{name, r.Operations, r.Throughput, r.Latency, strconv.FormatInt(r.Failed(), 10)})
}

// chart is one drawing.
type chart struct {
	Title  string
	Legend []series
	SVG    template.HTML
}

// series is one line of a chart, or several of the same name.
type series struct {
	Name  string
	Class string // CSS class: s0, s1 …
	value func(Point) float64
	runs  []*Report
}

// writeHTML writes one page that needs nothing from elsewhere.
func (r *Report) writeHTML(out io.Writer) error {
	runs := []*Report{r}
	return writePage(out, page{
		Title: r.Load, Reports: runs, Rows: r.rows(r.Load),
		Charts: []chart{
			draw("Latency, ms", []series{
				{"p50", "s0", func(p Point) float64 { return p.P50 }, runs},
				{"p99", "s1", func(p Point) float64 { return p.P99 }, runs},
				{"slowest", "s2", func(p Point) float64 { return p.Max }, runs},
			}),
			draw("Operations per second", []series{
				{"answered", "s0", func(p Point) float64 { return p.Throughput }, runs},
			}),
		},
	})
}

// writeHTML of a comparison draws every round of both sides.
func (c *Comparison) writeHTML(out io.Writer) error {
	both := func(value func(Point) float64) []series {
		return []series{{"A", "s0", value, c.A}, {"B", "s1", value, c.B}}
	}
	var rows []pageRow
	for i := range c.A {
		rows = slices.Concat(rows, c.A[i].rows(fmt.Sprintf("A %d", i+1)), c.B[i].rows(fmt.Sprintf("B %d", i+1)))
	}
	return writePage(out, page{
		Title: c.A[0].Load + ": A and B", Reports: slices.Concat(c.A, c.B), Rows: rows, Ratios: c.Ratios,
		Names: []string{strings.Join(c.A[0].Endpoints, " "), strings.Join(c.B[0].Endpoints, " ")},
		Charts: []chart{
			draw("p50 latency, ms", both(func(p Point) float64 { return p.P50 })),
			draw("p99 latency, ms", both(func(p Point) float64 { return p.P99 })),
			draw("Operations per second", both(func(p Point) float64 { return p.Throughput })),
		},
	})
}

func writePage(out io.Writer, p page) error {
	t, err := template.New("page").Funcs(template.FuncMap{"figure": figure}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("read the page's template: %w", err)
	}
	return t.Execute(out, p)
}

// The drawing's size and margins, in SVG units.
const (
	chartWidth, chartHeight         = 900, 300
	marginLeft, marginRight         = 64, 12
	marginTop, marginBottom         = 12, 32
	plotWidth                       = chartWidth - marginLeft - marginRight
	plotHeight                      = chartHeight - marginTop - marginBottom
	pointsMax                       = 450 // more would be closer together than a pixel
	ticksX, ticksY          float64 = 8, 5
)

// draw makes a line chart over time, from zero up.
func draw(title string, all []series) chart {
	width, height := 0.0, 0.0
	for _, s := range all {
		for _, r := range s.runs {
			for _, p := range r.Timeline {
				width, height = math.Max(width, p.Seconds), math.Max(height, s.value(p))
			}
		}
	}
	stepX, stepY := step(width/ticksX), step(height/ticksY)
	height = math.Max(stepY*math.Ceil(height/stepY), stepY)
	width = math.Max(width, stepX/1000)
	x := func(v float64) float64 { return marginLeft + v/width*plotWidth }
	y := func(v float64) float64 { return marginTop + (1-v/height)*plotHeight }
	svg := &strings.Builder{}
	fmt.Fprintf(svg, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s over time">`,
		chartWidth, chartHeight, template.HTMLEscapeString(title))
	for v := 0.0; v <= height*1.001; v += stepY {
		fmt.Fprintf(svg, `<path class="grid" d="M%d %.1fH%d"/><text class="y" x="%d" y="%.1f">%s</text>`,
			marginLeft, y(v), chartWidth-marginRight, marginLeft-8, y(v)+4, tick(v))
	}
	for v := 0.0; v <= width*1.001; v += stepX {
		fmt.Fprintf(svg, `<text class="x" x="%.1f" y="%d">%s s</text>`, x(v), chartHeight-8, tick(v))
	}
	for _, s := range slices.Backward(all) { // the first one on top
		for _, r := range s.runs {
			fmt.Fprintf(svg, `<polyline class="%s" points="`, s.Class)
			for _, p := range thin(r.Timeline, s.value) {
				fmt.Fprintf(svg, "%.1f,%.1f ", x(p[0]), y(p[1]))
			}
			svg.WriteString(`"/>`)
		}
	}
	svg.WriteString("</svg>")
	// The text is built from numbers, from our own class names and from the escaped title.
	return chart{Title: title, Legend: all, SVG: template.HTML(svg.String())} //nolint:gosec // escaped above
}

// thin keeps of each group of neighbours the highest value, so that no spike is lost. Slices without operations are left out.
func thin(points []Point, value func(Point) float64) [][2]float64 {
	var kept [][2]float64
	for group := range slices.Chunk(points, len(points)/pointsMax+1) {
		best := [2]float64{-1, -1}
		for _, p := range group {
			if v := value(p); v > best[1] && p.Operations > 0 {
				best = [2]float64{p.Seconds, v}
			}
		}
		if best[1] >= 0 {
			kept = append(kept, best)
		}
	}
	if len(kept) == 1 { // a short run: its one slice is a level line
		kept = [][2]float64{{0, kept[0][1]}, kept[0]}
	}
	return kept
}

// step is the round number (1, 2 or 5 times a power of ten) at or above v.
func step(v float64) float64 {
	if v <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*power*1.0001 {
			return m * power
		}
	}
	return 10 * power
}

// tick prints an axis value shortly.
func tick(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}
