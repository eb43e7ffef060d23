// Command etcdserver runs an embedded etcd as a process of its own, with etcd's usual flags, so that tests and
// benchmarks can put the real thing beside Kvorum.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "etcdserver:", err)
		os.Exit(1)
	}
}

// run starts the server and returns when it was told to stop or has failed.
func run(args []string) error {
	cfg := embed.NewConfig()
	flags := flag.NewFlagSet("etcdserver", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the flags are etcd's; an error says enough
	cfg.AddFlags(flags)
	flags.StringVar(&cfg.ClusterState, "initial-cluster-state", cfg.ClusterState, "Initial cluster state (new or existing).")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if cfg.Dir == "" {
		cfg.Dir = cfg.Name + ".etcd"
	}
	if err := applyURLs(cfg, flags); err != nil {
		return err
	}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-stop:
		return nil
	case <-server.Server.StopNotify():
		return errors.New("the server stopped by itself")
	case err := <-server.Err():
		return fmt.Errorf("serve: %w", err)
	}
}

// applyURLs copies the flags that are lists into the configuration: the flag set keeps them to itself.
func applyURLs(cfg *embed.Config, flags *flag.FlagSet) error {
	targets := map[string]*[]url.URL{
		"listen-client-urls":          &cfg.ListenClientUrls,
		"listen-client-http-urls":     &cfg.ListenClientHttpUrls,
		"advertise-client-urls":       &cfg.AdvertiseClientUrls,
		"listen-peer-urls":            &cfg.ListenPeerUrls,
		"initial-advertise-peer-urls": &cfg.AdvertisePeerUrls,
		"listen-metrics-urls":         &cfg.ListenMetricsUrls,
	}
	var failed error
	flags.Visit(func(f *flag.Flag) {
		target := targets[f.Name]
		if target == nil || failed != nil {
			return
		}
		*target = nil
		for _, text := range strings.Split(f.Value.String(), ",") {
			u, err := url.Parse(text)
			if err != nil {
				failed = fmt.Errorf("flag --%s: %w", f.Name, err)
				return
			}
			*target = append(*target, *u)
		}
	})
	if flagGiven(flags, "log-outputs") {
		cfg.LogOutputs = strings.Split(flags.Lookup("log-outputs").Value.String(), ",")
	}
	sets := map[string]*map[string]struct{}{"cors": &cfg.CORS, "host-whitelist": &cfg.HostWhitelist}
	flags.Visit(func(f *flag.Flag) {
		if target := sets[f.Name]; target != nil {
			*target = map[string]struct{}{}
			for _, text := range strings.Split(f.Value.String(), ",") {
				(*target)[text] = struct{}{}
			}
		}
	})
	if text := flags.Lookup("discovery-endpoints").Value.String(); text != "" {
		cfg.DiscoveryCfg.Endpoints, cfg.InitialCluster = strings.Split(text, ","), ""
	} else if !flagGiven(flags, "initial-cluster") {
		cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	}
	return failed
}

// flagGiven tells whether the user set the flag.
func flagGiven(flags *flag.FlagSet, name string) bool {
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}
