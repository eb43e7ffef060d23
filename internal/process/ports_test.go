package process

import "testing"

// If this fails, two tests that run at the same time start their servers on one port, and one of them fails by chance.
func TestTakenPortsAreNotGivenAgain(t *testing.T) {
	ports, err := FreePorts(200)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range ports {
		if seen[port] || port < portMin || port >= portMax {
			t.Errorf("port %d", port)
		}
		if reserve(port) {
			t.Errorf("port %d was given twice", port)
		}
		seen[port] = true
	}
}
