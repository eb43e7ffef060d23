package table

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// v2Rows makes the requests of the file in turn. One thing that needs two of them
// is two lines with one name.
func v2Rows(w *world) (rows []row) {
	for _, f := range facts(w.T, "etcd/v2.txt", 5) {
		r := row{group: f[0], name: f[1], state: met}
		if why := w.askV2(f[2], f[3], f[4]); why != "" {
			r.state, r.why = differs, why
		}
		if last := len(rows) - 1; last >= 0 && rows[last].group == r.group && rows[last].name == r.name {
			if rows[last].state == met {
				rows[last] = r
			}
			continue
		}
		rows = append(rows, r)
	}
	return rows
}

// askV2 makes one request and tells what of the answer is not as it should be.
func (w *world) askV2(request, status, says string) string {
	w.Helper()
	parts := strings.SplitN(request, " ", 3)
	form := ""
	if len(parts) == 3 {
		form = parts[2]
	}
	r, err := http.NewRequestWithContext(w.Context(), parts[0], w.member.ClientURL+parts[1], strings.NewReader(form))
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(form, "{") {
		r.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		w.Fatal(err)
	}
	if got := strconv.Itoa(answer.StatusCode); got != status {
		return fmt.Sprintf("status %s, not %s: %s", got, status, bytes.TrimSpace(body))
	}
	var all bytes.Buffer
	_ = answer.Header.Write(&all)
	all.Write(body)
	for part := range strings.SplitSeq(says, " & ") {
		if !strings.Contains(all.String(), part) {
			return fmt.Sprintf("the answer to %s lacks %s", request, part)
		}
	}
	return ""
}
