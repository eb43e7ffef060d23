package server

import (
	"context"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
)

// reflected asks a member by reflection, as grpcurl does.
type reflected struct {
	t      *testing.T
	stream reflectionpb.ServerReflection_ServerReflectionInfoClient
	files  map[string]*descriptorpb.FileDescriptorProto
}

func (r *reflected) ask(q *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
	r.t.Helper()
	if err := r.stream.Send(q); err != nil {
		r.t.Fatal(err)
	}
	answer, err := r.stream.Recv()
	if err != nil {
		r.t.Fatal(err)
	}
	if failed := answer.GetErrorResponse(); failed != nil {
		r.t.Fatalf("%v: %s", q, failed.ErrorMessage)
	}
	return answer
}

// keep keeps the files of an answer, and fetches what they import.
func (r *reflected) keep(answer *reflectionpb.ServerReflectionResponse) {
	r.t.Helper()
	for _, raw := range answer.GetFileDescriptorResponse().FileDescriptorProto {
		var f descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(raw, &f); err != nil {
			r.t.Fatal(err)
		}
		r.files[f.GetName()] = &f
	}
	for _, f := range r.files {
		for _, name := range f.Dependency {
			if r.files[name] == nil {
				r.keep(r.ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: name}}))
			}
		}
	}
}

// If this fails, grpcurl and its like cannot find or call some method.
func TestReflectionTellsOfEveryMethod(t *testing.T) {
	m := startMember(t, nil)
	stream, err := reflectionpb.NewServerReflectionClient(m.conn).ServerReflectionInfo(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := &reflected{t: t, stream: stream, files: map[string]*descriptorpb.FileDescriptorProto{}}
	list := r.ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	var services []string
	for _, s := range list.GetListServicesResponse().Service {
		services = append(services, s.Name)
		r.keep(r.ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.Name}}))
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, f := range r.files {
		set.File = append(set.File, f)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := reflectedMethods(t, files, services), methodsOf(m); !slices.Equal(got, want) {
		t.Errorf("reflection tells of\n%v\nthe server has\n%v", got, want)
	}
}

func reflectedMethods(t *testing.T, files *protoregistry.Files, services []string) []string {
	t.Helper()
	var all []string
	for _, name := range services {
		d, err := files.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			all = append(all, "/"+name+"/"+string(methods.Get(i).Name()))
		}
	}
	slices.Sort(all)
	return all
}

// If this fails, a load balancer sends clients to a member that is being
// defragmented, or keeps them away afterwards.
func TestHealthFollowsDefragmentation(t *testing.T) {
	m := startMember(t, func(c *Config) { c.FeatureGates = map[Feature]bool{FeatureStopGRPCServiceOnDefrag: true} })
	client := healthpb.NewHealthClient(m.conn)
	if _, err := client.Check(m.ctx, &healthpb.HealthCheckRequest{Service: "etcdserverpb.KV"}); status.Code(err) != codes.NotFound {
		t.Errorf("a service of its own: %v, want NotFound as etcd has", err)
	}
	watch, err := client.Watch(m.ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		answer, err := watch.Recv()
		if err != nil || answer.Status != want {
			t.Fatalf("%v, %v, want %v", answer, err, want)
		}
	}
	expect(healthpb.HealthCheckResponse_SERVING)
	ctx, stop := context.WithCancel(m.ctx)
	var defragmenting sync.WaitGroup
	defer defragmenting.Wait()
	defer stop()
	defragmenting.Go(func() { // again and again: of a change and its undoing in one moment watchers are not told
		for ctx.Err() == nil {
			_, _ = pb.NewMaintenanceClient(m.conn).Defragment(ctx, &pb.DefragmentRequest{})
		}
	})
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	expect(healthpb.HealthCheckResponse_SERVING)
}
