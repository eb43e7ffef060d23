package linear

import (
	"context"
	"syscall"
	"time"
)

// kill ends members and starts them again, all at once or one after the other.
func (f *injector) kill(ctx context.Context, members ...int) error {
	for _, i := range members {
		f.end(i)
	}
	if err := f.hold(ctx, f.between(time.Millisecond, 2500*time.Millisecond)); err != nil {
		return err
	}
	for _, i := range members {
		if f.cluster.Members[i].PID() == 0 {
			if err := f.cluster.Members[i].Launch(); err != nil {
				return err
			}
		}
	}
	return f.serve(members...)
}

// restartAll asks all members to end, which they must do, and starts them again.
func (f *injector) restartAll(context.Context) error {
	for i, e := range f.endpoints {
		e.life.Add(1)
		f.cluster.Members[i].Signal(syscall.SIGTERM)
	}
	for _, m := range f.cluster.Members {
		m.Terminate()
	}
	if err := f.cluster.StartAll(); err != nil {
		return err
	}
	return f.serve(f.all()...)
}

// bounce ends a member and starts it, but does not wait until it serves: it may need those who are away.
func (f *injector) bounce(i int) error {
	f.end(i)
	if f.cluster.Members[i].PID() != 0 {
		return nil
	}
	f.note("kill one more meanwhile")
	return f.cluster.Members[i].Launch()
}

func (f *injector) end(i int) {
	if e := f.endpoints[i]; e.life.Load()%2 == 1 {
		e.life.Add(1)
		f.cluster.Members[i].Kill()
	}
}

// serve waits until launched members do.
func (f *injector) serve(members ...int) error {
	for _, i := range members {
		if f.endpoints[i].life.Load()%2 == 1 {
			continue
		}
		if err := f.cluster.Members[i].WaitReady(); err != nil {
			return err
		}
		f.endpoints[i].life.Add(1)
	}
	return nil
}

// slowStart stops a member in the middle of its start.
func (f *injector) slowStart(ctx context.Context) error {
	i := f.any()
	f.end(i)
	wait(ctx, f.between(0, time.Second))
	m := f.cluster.Members[i]
	if err := m.Launch(); err != nil {
		return err
	}
	wait(ctx, f.between(5*time.Millisecond, 150*time.Millisecond))
	m.Signal(syscall.SIGSTOP)
	wait(ctx, f.between(100*time.Millisecond, 2*time.Second))
	m.Signal(syscall.SIGCONT)
	return f.serve(i)
}

func (f *injector) pause(ctx context.Context, i int) error {
	f.cluster.Members[i].Signal(syscall.SIGSTOP)
	err := f.hold(ctx, f.between(100*time.Millisecond, 4*time.Second))
	f.cluster.Members[i].Signal(syscall.SIGCONT)
	return err
}
