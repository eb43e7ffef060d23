package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// figures are what one round gave. All but throughput and memory are per operation.
type figures struct {
	throughput, p50, p99         float64 // operations per second, ms, ms
	cpu, memory, fsyncs, written float64 // µs, MiB, number, KiB
	counted                      bool    // instructions were
	instructions                 float64 // thousands
}

// values are in the order of the table's columns.
func (f figures) values() []float64 {
	all := []float64{f.throughput, f.p50, f.p99, f.cpu, f.memory, f.fsyncs, f.written}
	if f.counted {
		all = append(all, f.instructions)
	}
	return all
}

// throughputColumn is the one column where more is better.
const throughputColumn = "ops/s"

func (f figures) columns() string {
	columns := throughputColumn + " | p50 ms | p99 ms | server CPU µs/op | RSS MiB | fsyncs/op | KiB written/op"
	if f.counted {
		columns += " | thousand instructions/op"
	}
	return columns
}

// noise is how much worse than etcd a figure may look before it is called worse.
const noise = 1.1

// table writes the rows of one cluster size as they come.
type table struct {
	out      io.Writer
	binaries []binary
	columns  string   // of the table that is being written
	behind   []string // where the first system is worse than the second
}

func newTable(out io.Writer, binaries []binary) *table { return &table{out: out, binaries: binaries} }

func (t *table) begin(nodes int) error {
	title := "One member"
	if nodes > 1 {
		title = fmt.Sprintf("%d members", nodes)
	}
	_, err := fmt.Fprintf(t.out, "\n## %s\n", title)
	return err
}

// head writes the head of a table when the columns change.
func (t *table) head(what string, m measured) error {
	columns := m.columns()
	if t.columns == columns {
		return nil
	}
	t.columns = columns
	_, err := fmt.Fprintf(t.out, "\n| %s | system | %s |\n|---|---|%s\n",
		what, columns, strings.Repeat("---:|", strings.Count(columns, "|")+1))
	return err
}

// measured is what a round gives: figures in the order of the columns, whose names say which way is better.
type measured interface {
	values() []float64
	columns() string
}

// compare notes where the first system is worse than the second by more than noise. More operations per second are
// better; of everything else less is.
func (t *table) compare(load string, m measured, ratios []float64) {
	for i, name := range strings.Split(m.columns(), " | ") {
		worse := ratios[i] < 1/noise
		if name == throughputColumn {
			worse = ratios[i] > noise
		}
		if worse {
			t.behind = append(t.behind, fmt.Sprintf("%s: %s %s", load, name, ratioText(ratios[i])))
		}
	}
}

// add writes one load: medians of each system, then the ratios to the first.
func (t *table) add(title string, results [][]figures) error {
	if err := t.head("load", results[0][0]); err != nil {
		return err
	}
	return addRows(t, title, results)
}

// addRestart writes a table of its own: a restart has other columns.
func (t *table) addRestart(keys int64, results [][]restarted) error {
	if err := t.head("restart of one member", restarted{}); err != nil {
		return err
	}
	return addRows(t, fmt.Sprintf("%d keys with values of 256 bytes", keys), results)
}

func addRows[M measured](t *table, title string, results [][]M) error {
	load, medians := title, make([][]float64, len(results))
	for i, rounds := range results {
		medians[i] = medianOf(rounds)
		name := t.binaries[i].name
		if i == 0 {
			name = "**" + name + "**"
		}
		if err := t.row(title, name, medians[i], figure); err != nil {
			return err
		}
		title = ""
	}
	if len(medians) > 1 {
		t.compare(load, results[0][0], ratio(medians[1], medians[0]))
	}
	for i := 1; i < len(medians); i++ {
		if err := t.row("", t.binaries[i].name+" ÷ "+t.binaries[0].name, ratio(medians[i], medians[0]), ratioText); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) row(title, system string, values []float64, format func(float64) string) error {
	cells := make([]string, 0, len(values))
	for _, v := range values {
		cells = append(cells, format(v))
	}
	_, err := fmt.Fprintf(t.out, "| %s | %s | %s |\n", title, system, strings.Join(cells, " | "))
	return err
}

// end writes where the first system is behind the second.
func (t *table) end() error {
	if len(t.binaries) < 2 {
		return nil
	}
	first, second := t.binaries[0].name, t.binaries[1].name
	if len(t.behind) == 0 {
		_, err := fmt.Fprintf(t.out, "\n%s is nowhere more than %.0f%% behind %s.\n", first, (noise-1)*100, second)
		return err
	}
	_, err := fmt.Fprintf(t.out, "\nWhere %s is more than %.0f%% behind %s (%s ÷ %s):\n\n- %s\n",
		first, (noise-1)*100, second, second, first, strings.Join(t.behind, "\n- "))
	return err
}

// medianOf takes the median of each column.
func medianOf[M measured](rounds []M) []float64 {
	medians := make([]float64, len(rounds[0].values()))
	for i := range medians {
		var column []float64
		for _, f := range rounds {
			column = append(column, f.values()[i])
		}
		slices.Sort(column)
		medians[i] = (column[(len(column)-1)/2] + column[len(column)/2]) / 2
	}
	return medians
}

func ratio(a, b []float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = a[i] / b[i]
	}
	return all
}

// figure prints three significant digits.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	case v == 0:
		return "0"
	}
	return fmt.Sprintf("%.3f", v)
}

// ratioText prints a ratio; of nothing to nothing there is none.
func ratioText(v float64) string {
	if v != v || v > 1e6 {
		return "–"
	}
	return "×" + figure(v)
}

// header says what ran where, so that the table can be made again.
func (b *benchmark) header() error {
	command := strings.Join(append([]string{"go run ./integration/bench"}, b.args...), " ")
	_, err := fmt.Fprintf(b.out, "Made on %s with `%s`: %s, %d CPUs, Linux %s, %s. Medians of %d rounds of %s.\n",
		time.Now().UTC().Format(time.DateOnly), command, cpuModel(), runtime.NumCPU(), kernel(), runtime.Version(),
		b.settings.rounds, b.settings.duration)
	if err == nil && !b.counts {
		_, err = fmt.Fprintln(b.out, "`perf stat` counts no instructions here, so that column is left out.")
	}
	return err
}

func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	defer func() { _ = file.Close() }() // only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if _, model, found := strings.Cut(lines.Text(), "model name\t: "); found {
			return model
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "of unknown version"
	}
	return strings.TrimSpace(string(text))
}
