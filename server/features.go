package server

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Feature names one of etcd's feature gates.
type Feature string

// The feature gates. What each does is in features.
const (
	FeatureAllAlpha                     Feature = "AllAlpha"
	FeatureAllBeta                      Feature = "AllBeta"
	FeatureCompactHashCheck             Feature = "CompactHashCheck"
	FeatureFastLeaseKeepAlive           Feature = "FastLeaseKeepAlive"
	FeatureInitialCorruptCheck          Feature = "InitialCorruptCheck"
	FeatureLeaseCheckpoint              Feature = "LeaseCheckpoint"
	FeatureLeaseCheckpointPersist       Feature = "LeaseCheckpointPersist"
	FeaturePriorityRequest              Feature = "PriorityRequest"
	FeatureSetMemberLocalAddr           Feature = "SetMemberLocalAddr"
	FeatureStopGRPCServiceOnDefrag      Feature = "StopGRPCServiceOnDefrag"
	FeatureTxnModeWriteWithSharedBuffer Feature = "TxnModeWriteWithSharedBuffer"
)

// The stages of a feature, as the metric shows them.
const (
	stageAlpha = "ALPHA"
	stageBeta  = "BETA"
)

// feature is what is known of a gate.
type feature struct {
	name   Feature
	stage  string
	normal bool
	idle   string // why the gate changes nothing here; "" if it does
}

// features are all gates, in order of their names.
func features() []feature {
	return []feature{
		{name: FeatureAllAlpha, stage: stageAlpha},
		{name: FeatureAllBeta, stage: stageBeta},
		{name: FeatureCompactHashCheck, stage: stageAlpha},
		{name: FeatureFastLeaseKeepAlive, stage: stageBeta, normal: true},
		{name: FeatureInitialCorruptCheck, stage: stageAlpha},
		{name: FeatureLeaseCheckpoint, stage: stageAlpha},
		{
			name: FeatureLeaseCheckpointPersist, stage: stageAlpha,
			idle: "checkpoints of leases are always on disk, as they are in etcd from cluster version 3.6 on",
		},
		{name: FeaturePriorityRequest, stage: stageAlpha},
		{name: FeatureSetMemberLocalAddr, stage: stageAlpha},
		{name: FeatureStopGRPCServiceOnDefrag, stage: stageAlpha},
		{
			name: FeatureTxnModeWriteWithSharedBuffer, stage: stageBeta, normal: true,
			idle: "the reads of a transaction never copy a buffer",
		},
	}
}

// everyOf is the gate that sets all gates of a stage.
func everyOf(stage string) Feature {
	if stage == stageBeta {
		return FeatureAllBeta
	}
	return FeatureAllAlpha
}

func featureNames() []string {
	var names []string
	for _, f := range features() {
		names = append(names, string(f.name))
	}
	return names
}

func featureNamed(name string) (feature, bool) {
	all := features()
	at := slices.IndexFunc(all, func(f feature) bool { return string(f.name) == name })
	if at < 0 {
		return feature{}, false
	}
	return all[at], true
}

// setFeatures takes a list Name=true,….
func (c *Config) setFeatures(list string) error {
	if c.FeatureGates == nil {
		c.FeatureGates = map[Feature]bool{}
	}
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, text, given := strings.Cut(part, "=")
		name, text = strings.TrimSpace(name), strings.TrimSpace(text)
		f, ok := featureNamed(name)
		if !ok {
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
		if !given {
			return fmt.Errorf("missing bool value for %s", name)
		}
		on, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("invalid value of %s=%s, err: %w", name, text, err)
		}
		c.FeatureGates[f.name] = on
	}
	return nil
}

// enabled tells whether a gate is open: as it was set itself, or by the one for
// all of its stage, or by default.
func (c *Config) enabled(name Feature) bool {
	f, _ := featureNamed(string(name))
	for _, asked := range []Feature{name, everyOf(f.stage)} {
		if on, given := c.FeatureGates[asked]; given {
			return on
		}
	}
	return f.normal
}

// gates are the feature gates as they are in force, for the metric.
func (c *Config) gates() map[string]bool {
	on := map[string]bool{}
	for _, f := range features() {
		on[string(f.name)] = c.enabled(f.name)
	}
	return on
}

func featureStage(name string) string {
	f, _ := featureNamed(name)
	return f.stage
}

func (c *Config) validateFeatures() error {
	if c.enabled(FeatureLeaseCheckpointPersist) && !c.enabled(FeatureLeaseCheckpoint) {
		return errors.New("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")
	}
	return nil
}

// warnFeatures tells of gates that were set to what cannot be had here.
func (r *FlagResult) warnFeatures() {
	for _, f := range features() {
		if on := r.Config.enabled(f.name); f.idle != "" && on != f.normal {
			r.Warn = append(r.Warn, fmt.Sprintf("feature gate %s=%t has no effect: %s", f.name, on, f.idle))
		}
	}
}
