#!/usr/bin/env bash
# Starts a node on localhost:2379, writes, reads, watches, and leaves the node
# running until Ctrl-C. Run it from the root of the repository after `make build`.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
bin/kvorum "$@" 2>"$log" &
node=$!
watcher=
trap 'kill $watcher $node 2>/dev/null || true; wait 2>/dev/null || true; rm -f "$log"' EXIT

for _ in $(seq 100); do
	grep -q 'ready to serve client requests' "$log" && break
	kill -0 $node 2>/dev/null || { cat "$log" >&2; exit 1; }
	sleep 0.1
done

show() { printf '\n$ kvctl %s\n' "$*"; bin/kvctl "$@"; }

show put greeting hello
show get greeting
printf '\n$ kvctl watch greeting\n'
bin/kvctl watch greeting &
watcher=$!
sleep 0.5
show put greeting world
printf '\n$ kvctl txn\n'
printf 'value("greeting") = "world"\n\nput greeting "changed by a txn"\n\nput greeting lost\n\n' | bin/kvctl txn
show lease grant 60
show endpoint status -w table
printf '\nThe node serves on localhost:2379 (log: %s). Ctrl-C stops it.\n' "$log"
wait $node
