//go:build failpoints

package crash

import (
	"sync"
	"syscall"

	gofail "go.etcd.io/gofail/runtime"
)

var points sync.Map // name -> *gofail.Failpoint

// Here kills the process when the named point is armed. The name is
// "package/what-comes-next".
func Here(name string) {
	p, ok := points.Load(name)
	if !ok {
		p, _ = points.LoadOrStore(name, gofail.NewFailpoint(name))
	}
	if _, err := p.(*gofail.Failpoint).Acquire(); err != nil {
		return
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}
