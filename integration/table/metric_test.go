package table

import (
	"io"
	"net/http"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metricRows: what the server's own test says is absent counts as absent, unless
// the scrape has it; what has no rows before something happens is absent from the
// scrape and still there.
func metricRows(w *world) (rows []row) {
	_ = w.askAll()
	answer, err := http.Get(w.member.ClientURL + "/metrics")
	if err != nil {
		w.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range facts(w.T, "../../server/testdata/metrics.txt", 5) {
		r := row{group: f[1], name: f[0], state: met}
		switch family := families[f[0]]; {
		case family != nil && strings.ToLower(family.GetType().String()) != f[1]:
			r.state, r.why = differs, "it is a "+strings.ToLower(family.GetType().String())
		case family == nil && f[4] != "":
			r.state, r.why = absent, f[4]
		}
		rows = append(rows, r)
	}
	return rows
}
