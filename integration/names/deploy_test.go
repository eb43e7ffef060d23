package names

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kvorum/kvorum/internal/process"
	"github.com/kvorum/kvorum/server"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// parse checks what a member would say to these flags and variables.
func parse(t *testing.T, args, environ []string) server.Config {
	t.Helper()
	r, err := server.ParseFlags(args, environ, io.Discard)
	if err != nil || len(r.Warn) > 0 {
		t.Fatalf("the member says: %v, %q", err, r.Warn)
	}
	return r.Config
}

// lines are those of a file of settings, without comments.
func lines(text []byte) (all []string) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			all = append(all, line)
		}
	}
	return all
}

// If this fails, the unit that the docs hand out does not start.
func TestSystemdUnit(t *testing.T) {
	unit := lines(read(t, "systemd/kvorum.service"))
	for _, want := range []string{"Type=notify", "ExecStart=/usr/local/bin/kvorum", "EnvironmentFile=/etc/kvorum/kvorum.env", "StateDirectory=kvorum"} {
		if !slices.Contains(unit, want) {
			t.Errorf("kvorum.service has no line %s", want)
		}
	}
	c := parse(t, nil, lines(read(t, "systemd/kvorum.env")))
	if c.Name != "m1" || c.DataDir != "/var/lib/kvorum" || !c.ClientTLS.ClientCertAuth || !c.PeerTLS.ClientCertAuth {
		t.Errorf("kvorum.env makes %+v", c)
	}
}

// pod is what the test needs of a pod.
type pod struct {
	Kind string `json:"kind"`
	Spec struct {
		Containers []struct {
			Command                                     []string `json:"command"`
			LivenessProbe, ReadinessProbe, StartupProbe probe
			VolumeMounts                                []struct{ MountPath string }
		} `json:"containers"`
	} `json:"spec"`
}

type probe struct {
	HTTPGet struct {
		Host, Path, Scheme string
		Port               int
	} `json:"httpGet"`
}

// If this fails, the kubelet restarts a member that is well, or the member of the
// example does not start.
func TestStaticPod(t *testing.T) {
	var p pod
	if err := yaml.Unmarshal(read(t, "kubernetes/kvorum.yaml"), &p); err != nil || p.Kind != "Pod" || len(p.Spec.Containers) != 1 {
		t.Fatalf("%v, %+v", err, p)
	}
	c := p.Spec.Containers[0]
	if c.Command[0] != "kvorum" {
		t.Errorf("runs %s", c.Command[0])
	}
	config := parse(t, c.Command[1:], nil)
	for _, file := range []string{config.DataDir, config.ClientTLS.CertFile, config.PeerTLS.TrustedCAFile} {
		if !slices.ContainsFunc(c.VolumeMounts, func(m struct{ MountPath string }) bool { return strings.HasPrefix(file, m.MountPath) }) {
			t.Errorf("%s lies in no volume", file)
		}
	}
	member := startMember(t)
	for name, probe := range map[string]probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe, "startup": c.StartupProbe} {
		get := probe.HTTPGet
		if url := fmt.Sprintf("%s://%s:%d", strings.ToLower(get.Scheme), get.Host, get.Port); url != config.ListenMetricsURLs[0].String() {
			t.Errorf("the %s probe asks %s, where nobody listens", name, url)
		}
		answer, err := http.Get(member + get.Path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("the %s probe %s gets %s", name, get.Path, answer.Status)
		}
	}
}

// startMember gives the URL at which a member answers probes.
func startMember(t *testing.T) string {
	t.Helper()
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	c, err := process.Start(process.Options{
		Binary: filepath.Join(installed, "kvorum"), Size: 1, Dir: t.TempDir(), Args: []string{"--listen-metrics-urls", url},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return url
}
