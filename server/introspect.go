package server

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/kvorum/kvorum/server/api"
)

// registerHealth serves grpc.health.v1: the member serves as long as it runs,
// but for defragmentations with the feature StopGRPCServiceOnDefrag, in which
// clients are to go elsewhere.
func (s *Server) registerHealth(g *grpc.Server, services *api.Services) {
	status := health.NewServer()
	healthpb.RegisterHealthServer(g, status)
	if !s.cfg.StopServiceOnDefrag {
		return
	}
	const allServices = ""
	services.ObserveDefrag(func(begins bool) {
		if begins {
			status.SetServingStatus(allServices, healthpb.HealthCheckResponse_NOT_SERVING)
			return
		}
		status.SetServingStatus(allServices, healthpb.HealthCheckResponse_SERVING)
	})
}

// registerReflection lets tools ask for the services and their messages, in both
// versions of the protocol. Call it last: it tells of what is registered.
func registerReflection(g *grpc.Server) { reflection.Register(g) }
