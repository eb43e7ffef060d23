package names

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kvorum/kvorum/internal/process"
)

// installed is the folder with the programs and the links to them.
var installed string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "names")
		if err == nil {
			defer func() { _ = os.RemoveAll(folder) }()
			installed, err = folder, install(folder)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// install builds the programs into a folder and links etcd's names to them.
func install(folder string) error {
	if out, err := exec.Command("go", "build", "-o", folder, "../../cmd/kvorum", "../../cmd/kvctl").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	for name, program := range map[string]string{"etcd": "kvorum", "etcdctl": "kvctl", "etcdutl": "kvctl"} {
		if err := os.Symlink(program, filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return nil
}

// If this fails, a script, an image or a unit file that calls etcd by its name
// gets something else.
func TestEtcdsNames(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			ports, err := process.FreePorts(2)
			if err != nil {
				return err
			}
			e.Setenv("PATH", installed+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("CLIENT", fmt.Sprintf("http://127.0.0.1:%d", ports[0]))
			e.Setenv("PEER", fmt.Sprintf("http://127.0.0.1:%d", ports[1]))
			return nil
		},
	})
}
