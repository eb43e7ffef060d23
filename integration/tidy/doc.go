// Package tidy turns the project's agreed rules into tests. Each failure says
// which rule was broken and why the rule exists; docs/adr and the package
// comments have the longer story.
package tidy
