package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/yaml"
)

// query is an expression of PromQL and where it stands.
type query struct{ where, expr string }

// alertQueries reads the rules, and checks what Prometheus would refuse.
func alertQueries(t *testing.T) (all []query) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalStrict(must[[]byte](t)(os.ReadFile("../deploy/prometheus/kvorum.rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Expr == "" || names[r.Alert] || !regexp.MustCompile(`^\d+[smh]$`).MatchString(r.For) {
				t.Errorf("rule %q: it needs a name of its own, an expression and a time", r.Alert)
			}
			if s := r.Labels["severity"]; s != "warning" && s != "critical" {
				t.Errorf("rule %s has the severity %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("rule %s does not say what is wrong and what to do", r.Alert)
			}
			names[r.Alert] = true
			all = append(all, query{"alert " + r.Alert, r.Expr})
			for text := range maps.Values(r.Annotations) {
				for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
					all = append(all, query{"annotation of " + r.Alert, "sum by (" + m[1] + ") (" + r.Expr + ")"})
				}
			}
		}
	}
	return all
}

// dashboardQueries reads the dashboard.
func dashboardQueries(t *testing.T) (all []query) {
	t.Helper()
	var board struct {
		Title  string
		Panels []struct {
			ID          int
			Title, Type string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile("../deploy/grafana/kvorum.json")), &board); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 || (p.Type != "row") != (len(p.Targets) > 0) {
			t.Errorf("panel %q: id %d, place %+v, %d queries", p.Title, p.ID, p.GridPos, len(p.Targets))
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$job", "kvorum", "$instance", ".*").Replace(target.Expr)
			all = append(all, query{"panel " + p.Title, expr})
			for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				all = append(all, query{"legend of " + p.Title, "sum by (" + m[1] + ") (" + expr + ")"})
			}
		}
	}
	return all
}

// named are the names in an expression: metrics with the labels that they are
// selected by, and labels that something is grouped by.
type named struct {
	metrics map[string][]string
	groups  []string
}

// The words of PromQL that the files use. A test with the whole language would
// need Prometheus itself.
func promWords() []string {
	return []string{"sum", "count", "max", "rate", "increase", "histogram_quantile", "predict_linear", "min_over_time", "floor", "vector"}
}

// promTokens cuts an expression into its words and signs.
func promTokens(expr string) (tokens []string, err error) {
	token := regexp.MustCompile(`^(\s+|"[^"]*"|\[\d+[smhd]\]|\d+(\.\d+)?|[a-zA-Z_:][a-zA-Z0-9_:]*|=~|!~|!=|==|<=|>=|[-+*/(){},<>=])`)
	for rest := expr; rest != ""; {
		text := token.FindString(rest)
		if text == "" {
			return nil, fmt.Errorf("cannot read %.20q", rest)
		}
		if rest = rest[len(text):]; strings.TrimSpace(text) != "" {
			tokens = append(tokens, text)
		}
	}
	return tokens, nil
}

// parseQuery finds the names in an expression, and what is wrong with it.
func parseQuery(expr string) (named, error) {
	n := named{metrics: map[string][]string{}}
	tokens, err := promTokens(expr)
	if err != nil {
		return n, err
	}
	isWord := regexp.MustCompile(`^[a-zA-Z_:]`)
	var open []string // brackets
	last := ""        // metric
	for i, text := range tokens {
		next := ""
		if i+1 < len(tokens) {
			next = tokens[i+1]
		}
		word := isWord.MatchString(text)
		inner := ""
		if len(open) > 0 {
			inner = open[len(open)-1]
		}
		switch {
		case text == "(" && i > 0 && tokens[i-1] == "by":
			open = append(open, "by")
		case text == "(" || text == "{":
			open = append(open, text)
		case text == ")" || text == "}":
			if inner == "" || (inner == "{") != (text == "}") {
				return n, fmt.Errorf("a %s closes nothing", text)
			}
			open = open[:len(open)-1]
		case !word || text == "by" || text == "and" || text == "or":
		case inner == "by":
			n.groups = append(n.groups, text)
		case inner == "{":
			n.metrics[last] = append(n.metrics[last], text)
		case next == "(" || next == "by":
			if !slices.Contains(promWords(), text) {
				return n, fmt.Errorf("%s is no function that this test knows", text)
			}
		default:
			last = text
			n.metrics[text] = append(n.metrics[text], []string{}...)
		}
	}
	if len(open) > 0 {
		return n, fmt.Errorf("a bracket is not closed")
	}
	return n, nil
}

// labelsOf are the labels of a metric that a member exports, with those that
// Prometheus adds; nil if there is no such metric.
func labelsOf(families map[string]*dto.MetricFamily, name string) []string {
	labels := []string{"job", "instance"}
	if name == "up" {
		return labels
	}
	f := families[name]
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && f == nil && families[base].GetType() == dto.MetricType_HISTOGRAM {
			f = families[base]
			labels = append(labels, "le")
		}
	}
	if f == nil {
		return nil
	}
	for _, row := range f.Metric {
		for _, l := range row.Label {
			labels = append(labels, l.GetName())
		}
	}
	return labels
}

// If this fails, an alert never fires or a panel stays empty, because a name in
// it is no longer exported.
func TestAlertsAndDashboardsNameWhatIsExported(t *testing.T) {
	m := startMember(t, func(c *Config) {
		c.Metrics, c.Audit.To = MetricsExtensive, filepath.Join(t.TempDir(), "audit")
	})
	useEverything(t, m)
	families := m.scrape()
	ofEtcd := map[string]bool{}
	for _, w := range wantedMetrics(t) {
		ofEtcd[w.name] = true
	}
	queries := append(alertQueries(t), dashboardQueries(t)...)
	if len(queries) < 100 {
		t.Errorf("only %d queries were found", len(queries))
	}
	for _, q := range queries {
		n, err := parseQuery(q.expr)
		if err != nil {
			t.Errorf("%s: %v in %s", q.where, err, q.expr)
			continue
		}
		var labels []string
		for metric, selected := range n.metrics {
			has := labelsOf(families, metric)
			if has == nil {
				t.Errorf("%s: %s is not exported", q.where, metric)
			}
			for _, l := range selected {
				if !slices.Contains(has, l) {
					t.Errorf("%s: %s has no label %s", q.where, metric, l)
				}
			}
			base := strings.TrimSuffix(metric, "_bucket")
			if !ofEtcd[base] && metric != "up" && !strings.HasPrefix(metric, "kvorum_") {
				t.Errorf("%s: etcd has no %s: the file would not work for both", q.where, metric)
			}
			labels = append(labels, has...)
		}
		for _, l := range n.groups {
			if !slices.Contains(labels, l) {
				t.Errorf("%s: nothing has the label %s", q.where, l)
			}
		}
	}
}

// If this fails, the test above finds no mistake in any query.
func TestQueriesAreRead(t *testing.T) {
	n, err := parseQuery(`histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{job=~".*", x!="y"}[5m]))) > 0.5 and b / c == 1`)
	if want := map[string][]string{"a_bucket": {"job", "x"}, "b": nil, "c": nil}; err != nil || fmt.Sprint(n.metrics) != fmt.Sprint(want) || !slices.Equal(n.groups, []string{"job", "le"}) {
		t.Errorf("%+v, %v", n, err)
	}
	for _, wrong := range []string{"rate(a[5m]", "rate(a[5m]))", "a{b=\"c\")", "guess(a)", "a # b", "rate(a[five])"} {
		if _, err := parseQuery(wrong); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}
