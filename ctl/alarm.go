package ctl

import (
	"github.com/spf13/cobra"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

func newAlarm(a *app) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the alarms that are on", Example: "  " + a.name + " alarm list",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArgs("alarm list command accepts no arguments")
			}
			return a.online(func(c command) error {
				r, err := c.Alarms(c.ctx)
				if err != nil {
					return err
				}
				return c.Printer.Alarms(r)
			})
		},
	}
	disarm := &cobra.Command{
		Use: "disarm", Short: "Switch all alarms off, and list them", Example: "  " + a.name + " alarm disarm",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badArgs("alarm disarm command accepts no arguments")
			}
			return a.online(func(c command) error {
				r, err := c.disarm()
				if err != nil {
					return err
				}
				return c.Printer.Alarms(r)
			})
		},
	}
	return group("alarm", "See and switch off what stops writes: no space, corruption", disarm, list)
}

// disarm switches off every alarm that is on and returns these.
func (c command) disarm() (*pb.AlarmResponse, error) {
	on, err := c.Alarms(c.ctx)
	if err != nil {
		return nil, err
	}
	done := &pb.AlarmResponse{}
	for _, m := range on.Alarms {
		r, err := c.Maintenance.Alarm(c.ctx, &pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, MemberID: m.MemberID, Alarm: m.Alarm,
		})
		if err != nil {
			return nil, err
		}
		done.Alarms = append(done.Alarms, r.Alarms...)
	}
	return done, nil
}
