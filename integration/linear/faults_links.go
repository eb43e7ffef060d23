package linear

import (
	"context"
	"time"
)

// linksBetween are the links from one group of members to another.
func (f *injector) linksBetween(from, to []int) []Link {
	var links []Link
	for _, i := range from {
		for _, j := range to {
			if i != j {
				links = append(links, Link{f.cluster.Members[i].Name, f.cluster.Members[j].Name})
			}
		}
	}
	return links
}

// isolate parts a member from the others: in both directions or one, with broken connections or silent ones.
func (f *injector) isolate(ctx context.Context, i int) error {
	in := append(f.linksBetween(f.all(), []int{i}), Link{"", f.cluster.Members[i].Name})
	out := f.linksBetween([]int{i}, f.all())
	both := append(in[:len(in):len(in)], out...)
	return f.sever(ctx, [][]Link{in, out, both, both}[f.random.IntN(4)])
}

// split parts the cluster in two.
func (f *injector) split(ctx context.Context) error {
	order := f.random.Perm(len(f.ids))
	here := 1 + f.random.IntN(len(f.ids)-1)
	a, b := order[:here], order[here:]
	return f.sever(ctx, append(f.linksBetween(a, b), f.linksBetween(b, a)...))
}

func (f *injector) cutPair(ctx context.Context) error {
	i := f.any()
	j := (i + 1 + f.random.IntN(len(f.ids)-1)) % len(f.ids)
	links := append(f.linksBetween([]int{i}, []int{j}), f.linksBetween([]int{j}, []int{i})...)
	return f.sever(ctx, links[:1+f.random.IntN(2)])
}

func (f *injector) sever(ctx context.Context, links []Link) error {
	f.proxies.Set([]Fate{Cut, Frozen}[f.random.IntN(2)], links...)
	err := f.hold(ctx, f.between(200*time.Millisecond, 3*time.Second))
	f.proxies.Set(Whole, links...)
	return err
}

// slowLinks delays what one member, or all of them, send and hear.
func (f *injector) slowLinks(ctx context.Context) error {
	links := f.linksBetween(f.all(), f.all())
	if i := f.any(); f.random.IntN(2) == 0 {
		links = append(f.linksBetween(f.all(), []int{i}), f.linksBetween([]int{i}, f.all())...)
	}
	f.proxies.SetSlow(f.between(2*time.Millisecond, 150*time.Millisecond), links...)
	err := f.hold(ctx, f.between(500*time.Millisecond, 3*time.Second))
	f.proxies.Set(Whole, links...)
	return err
}

// cutClients breaks the connections of clients to a member, or loses what they ask, or what they are answered.
func (f *injector) cutClients(ctx context.Context) error {
	name := f.cluster.Members[f.any()].Name
	asked, answered := Link{Clients, name}, Link{name, Clients}
	link, fate := asked, Cut
	switch f.random.IntN(3) {
	case 0:
		fate = Frozen
	case 1:
		link, fate = answered, Frozen
	}
	f.proxies.Set(fate, link)
	err := f.hold(ctx, f.between(200*time.Millisecond, 2500*time.Millisecond))
	f.proxies.Set(Whole, link)
	return err
}
