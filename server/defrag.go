package server

import (
	"context"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Defragment implements api.Member. With FeatureStopGRPCServiceOnDefrag, the
// health service tells clients to use another member meanwhile.
func (s *Server) Defragment(ctx context.Context) error {
	if s.cfg.enabled(FeatureStopGRPCServiceOnDefrag) {
		s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
		defer s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	}
	return s.store.Defragment(ctx)
}

// defragmentAtStart gives free pages back to the disk before anything is served,
// if that is worth it.
func (s *Server) defragmentAtStart(ctx context.Context) error {
	threshold := int64(s.cfg.BootDefragMegabytes) << 20
	if threshold == 0 {
		return nil
	}
	before := s.store.Stats()
	free := before.SizeBytes - before.InUseBytes
	if free < threshold {
		s.log.Info("skipping defragmentation", "free-bytes", free, "threshold-bytes", threshold)
		return nil
	}
	began := time.Now()
	if err := s.store.Defragment(ctx); err != nil {
		return fmt.Errorf("--bootstrap-defrag-threshold-megabytes: %w", err)
	}
	s.log.Info("defragmented before the start", "bytes-before", before.SizeBytes, "bytes-after", s.store.Stats().SizeBytes, "took", time.Since(began))
	return nil
}
