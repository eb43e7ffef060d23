// Package kubernetes runs the storage code of kube-apiserver
// (k8s.io/apiserver/pkg/storage/etcd3) against a Kvorum process over mutual TLS,
// with the tests that Kubernetes has for every storage.
//
// It is a module of its own, because the libraries of Kubernetes and etcd's
// client are large and because two protobuf packages of the same name cannot live
// in one process with Kvorum's.
package kubernetes
