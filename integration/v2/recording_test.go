package v2

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// recording is what etcd 3.4 has answered in one test, in order, so that
// Kvorum can be held against it where there is no etcd. KVORUM_RECORD=1 writes
// it anew.
type recording struct {
	answers []recorded
	next    int
}

type recorded struct{ Ask, Answer string }

// loadRecording reads testdata/<test>.json; none is empty.
func loadRecording(t *testing.T) *recording {
	t.Helper()
	r, path := &recording{}, filepath.Join("testdata", t.Name()+".json")
	if os.Getenv("KVORUM_RECORD") != "" {
		t.Cleanup(func() {
			text, err := json.MarshalIndent(r.answers, "", " ")
			if err == nil && len(r.answers) > 0 {
				err = os.WriteFile(path, append(text, '\n'), 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		})
		return r
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r
	}
	if err == nil {
		err = json.Unmarshal(text, &r.answers)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// want is the answer to the next request: of etcd itself if it is there, else
// as recorded. An error says that the two are not the same.
func (r *recording) want(ask, live string, isLive bool) (string, error) {
	r.next++
	if os.Getenv("KVORUM_RECORD") != "" {
		r.answers = append(r.answers, recorded{ask, live})
		return live, nil
	}
	if len(r.answers) == 0 {
		return live, nil // this test is not recorded
	}
	if r.next > len(r.answers) || r.answers[r.next-1].Ask != ask {
		return live, fmt.Errorf("request %d, %s, is not recorded: run once with KVORUM_RECORD=1 where etcd 3.4 is installed", r.next, ask)
	}
	old := r.answers[r.next-1].Answer
	if isLive && old != live {
		return live, fmt.Errorf("%s: recorded is %s, and etcd answers %s", ask, old, live)
	}
	return old, nil
}
