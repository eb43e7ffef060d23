//go:build failpoints

package crash

import (
	"sync"
	"syscall"

	gofail "go.etcd.io/gofail/runtime"
)

// points are the names that were passed so far.
var points struct {
	sync.Mutex
	byName map[string]*gofail.Failpoint
}

// Here kills the process when the named point is armed. The name is
// "package/what-comes-next".
func Here(name string) {
	if _, err := point(name).Acquire(); err != nil {
		return
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}

// point makes a point when it is passed for the first time. The library panics
// when a name is registered twice, so two goroutines may not do it at once.
func point(name string) *gofail.Failpoint {
	points.Lock()
	defer points.Unlock()
	p := points.byName[name]
	if p == nil {
		if points.byName == nil {
			points.byName = map[string]*gofail.Failpoint{}
		}
		p = gofail.NewFailpoint(name)
		points.byName[name] = p
	}
	return p
}
