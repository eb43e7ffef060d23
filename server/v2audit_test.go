package server

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// If this fails, what is done through the v2 API leaves no trace in the audit
// log, or its values do.
func TestAuditLogOfV2(t *testing.T) {
	for level, want := range map[string][]string{
		AuditMetadata: {"v2/PUT 201", "v2/GET 200", "v2/GET 404"},
		AuditWrite:    {"v2/PUT 201", "v2/GET 404"},
	} {
		path := filepath.Join(t.TempDir(), "audit")
		m := startMember(t, func(c *Config) { c.Audit.To, c.Audit.Level = path, level })
		m.awaitServing()
		m.v2set("/a", "s3cr3t")
		m.v2(http.MethodGet, "/v2/keys/a", nil)
		m.v2(http.MethodGet, "/v2/keys/missing", nil)
		m.stop()
		lines, text := auditLines(t, path)
		if strings.Contains(text, "s3cr3t") {
			t.Errorf("a value is in the audit log:\n%s", text)
		}
		var got []string
		for _, l := range lines {
			if !strings.HasPrefix(l.Op, "v2/") {
				continue
			}
			got = append(got, l.Op+" "+l.Code)
			if l.Key != "/v2/keys/a" && l.Key != "/v2/keys/missing" || l.Revision == 0 || l.BytesOut == 0 || !strings.HasPrefix(l.Remote, "127.0.0.1:") {
				t.Errorf("%+v", l)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("level %s: %q, want %q", level, got, want)
		}
	}
}
