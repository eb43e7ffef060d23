package power

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// quoted is how strace -xx writes a string.
func quoted(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return b.String()
}

// trace makes lines as strace writes them: $name is a string, in quotes or not,
// and the root is in front of names with a slash.
func trace(root, script string) string {
	var out strings.Builder
	for i, line := range strings.Split(strings.TrimSpace(script), "\n") {
		thread, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		for strings.Contains(text, "$") {
			before, after, _ := strings.Cut(text, "$")
			word := after[:strings.IndexAny(after, `">,)`)]
			value := word
			if strings.HasPrefix(word, "/") {
				value = strings.TrimSuffix(root+word, "/")
			}
			text = before + quoted(value) + after[len(word):]
		}
		fmt.Fprintf(&out, "%s %d.5 %s\n", thread, 1000+i, text)
	}
	return out.String()
}

// If this fails, images of a crash have what no disk has, and the tests of power
// loss prove nothing.
func TestImages(t *testing.T) {
	const create = `1 openat(AT_FDCWD<$/>, "$/a", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 7<$/a>
`
	for _, c := range []struct{ name, script, lost, kept string }{
		{"nothing is synced", create + `1 write(7<$/a>, "$abc", 3) = 3`, "", "a=abc"},
		{"the file is synced, its name is not", create + `1 write(7<$/a>, "$abc", 3) = 3
			1 fsync(7<$/a>) = 0`, "", "a=abc"},
		{"the name is synced, the file is not", create + `1 write(7<$/a>, "$abc", 3) = 3
			1 fsync(8<$/>) = 0`, "a=", "a=abc"},
		{"both are synced", create + `1 write(7<$/a>, "$abc", 3) = 3
			1 fdatasync(7<$/a>) = 0
			1 fsync(8<$/>) = 0
			1 pwrite64(7<$/a>, "$x", 1, 1) = 1`, "a=abc", "a=axc"},
		{"a write that began before the sync and ended after it", create + `1 fsync(8<$/>) = 0
			1 pwrite64(7<$/a>, "$abc", 3, 0 <unfinished ...>
			2 fsync(7<$/a>) = 0
			1 <... pwrite64 resumed>) = 3`, "a=", "a=abc"},
		{"a sync that did not end", create + `1 fsync(8<$/>) = 0
			1 pwrite64(7<$/a>, "$abc", 3, 0) = 3
			2 fsync(7<$/a> <unfinished ...>`, "a=", "a=abc"},
		{"a rename without the sync of its directory", create + `1 fsync(8<$/>) = 0
			1 renameat(AT_FDCWD<$/>, "$/a", AT_FDCWD<$/>, "$/b") = 0`, "a=", "b="},
		{"a call that failed", create + `1 fsync(8<$/>) = 0
			1 unlinkat(AT_FDCWD<$/>, "$/a", 0) = -1 ENOENT (No such file or directory)`, "a=", "a="},
	} {
		root := t.TempDir()
		for loss, want := range map[Loss]string{LoseAll: c.lost, LoseNone: c.kept} {
			if got := imageOf(t, root, trace(root, c.script), loss); got != want {
				t.Errorf("%s, %s: %q, not %q", c.name, loss, got, want)
			}
		}
	}
}

func imageOf(t *testing.T, root, text string, loss Loss) string {
	t.Helper()
	events, err := Parse(strings.NewReader(text), root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDisk(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := d.Do(e); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := d.Image(dir, loss, nil); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, filepath.Base(name)+"="+string(b))
	}
	return strings.Join(all, " ")
}

// If this fails, a way to change files that the model does not know goes unseen.
func TestUnknownCallsAreRefused(t *testing.T) {
	text := trace("/r", `1 copy_file_range(7<$/a>, NULL, 8<$/b>, NULL, 100, 0) = 100`)
	if _, err := Parse(strings.NewReader(text), "/r"); !errors.Is(err, errTrace) {
		t.Errorf("copy_file_range is taken: %v", err)
	}
}
