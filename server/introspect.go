package server

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
)

// registerReflection lets tools ask for the services and their messages, in both
// versions of the protocol. Call it last: it tells of what is registered.
func registerReflection(g *grpc.Server) { reflection.Register(g) }
