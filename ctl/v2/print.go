package v2

import (
	"encoding/json"
	"io"
)

// printEvent shows an answer as -o asks for.
func (t *tool) printEvent(e *event) {
	switch t.global.output {
	case "json":
		b, err := json.Marshal(e)
		if err != nil {
			t.warnf("%v\n", err) // cannot be: the event came as JSON
			return
		}
		t.printf("%s\n", b)
	case "extended":
		t.printExtended(e)
	case simple:
		t.printSimple(e)
	default:
		t.warnf("Unsupported output format: %s\n", t.global.output)
	}
}

// simple is the default of -o.
const simple = "simple"

func (t *tool) printSimple(e *event) {
	switch {
	case e.Node.Dir:
	case e.Action != "delete":
		t.printf("%s\n", e.Node.Value)
	case e.PrevNode != nil:
		t.printf("PrevNode.Value: %s\n", e.PrevNode.Value)
	}
}

func (t *tool) printExtended(e *event) {
	t.printf("Key: %s\nCreated-Index: %d\nModified-Index: %d\n", e.Node.Key, e.Node.CreatedIndex, e.Node.ModifiedIndex)
	if e.PrevNode != nil {
		t.printf("PrevNode.Value: %s\n", e.PrevNode.Value)
	}
	t.printf("TTL: %d\nIndex: %d\n", e.Node.TTL, e.index)
	if e.Action != "delete" {
		t.printf("\n%s\n", e.Node.Value)
	}
}

// stdinValue is all that standard input holds; nothing is an error.
func (t *tool) stdinValue() (string, error) {
	b, err := io.ReadAll(t.Stdin)
	if err != nil || len(b) == 0 {
		return "", badArgs("Error:  value required")
	}
	return string(b), nil
}
