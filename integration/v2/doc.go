// Package v2 holds the v2 API against Debian's etcd 3.4: the same requests to
// both, with the same status, headers, JSON, codes, texts and causes in the
// answers, indexes counted from the same request. Without that etcd only the
// tests that need Kvorum alone run.
package v2
