package tidy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// historyPage is the table of historical bugs and their tests.
const historyPage = "docs/reliability.md"

// If this fails, the page promises a test that does not exist, and a bug that
// has cost others their data may come back unseen.
func TestHistoryNamesTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), historyPage))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "## History's lessons")
	if !found {
		t.Fatalf("%s has no section on history's lessons", historyPage)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	cell := regexp.MustCompile("((?:`Test\\w+`(?:, )?)+) \\(`([\\w/]+)`\\)")
	lessons := 0
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| lesson") {
			continue
		}
		lessons++
		named := cell.FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("no test in: %s", line)
		}
		for _, m := range named {
			for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(m[1], -1) {
				if !hasTest(t, m[2], name) {
					t.Errorf("%s names %s in %s, which is not there", historyPage, name, m[2])
				}
			}
		}
	}
	if lessons < 13 {
		t.Errorf("%d lessons in the table, not 13", lessons)
	}
}

// hasTest tells whether a folder's tests have the function.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}
