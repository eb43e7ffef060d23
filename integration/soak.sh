#!/bin/bash
# The long run: real processes under faults (integration/linear) beside the
# simulation (integration/sim, raft), for a given time; then the planted bugs
# and the long variants of other tests. Ends with the figures of all.
#
#   integration/soak.sh 1h soak
#
# Logs, figures and the histories of violations are in the directory named last.
set -u
long=${1:-1h}
mkdir -p "${2:-soak}"
dir=$(cd "${2:-soak}" && pwd)
GO=${GO:-go}
failed=0

export SOAK=$long
KVORUM_LONG=1 $GO test -count=1 -v -timeout 0 -run TestLinearizableUnderFaults ./integration/linear \
  -args -histories "$dir" -figures "$dir/linear.txt" >"$dir/linear.log" 2>&1 &
linear=$!
KVORUM_LONG=1 $GO test -count=1 -v -timeout 0 -run Sim ./integration/sim ./raft >"$dir/sim.log" 2>&1 &
sim=$!
wait $linear || { echo "FAIL: integration/linear, see $dir/linear.log"; failed=1; }
wait $sim || { echo "FAIL: integration/sim or raft, see $dir/sim.log"; failed=1; }

KVORUM_SEEDS=2000 $GO test -tags planted -count=1 -v -timeout 60m -run Planted ./integration/linear ./integration/sim >"$dir/planted.log" 2>&1 ||
  { echo "FAIL: a planted bug was not caught, see $dir/planted.log"; failed=1; }
KVORUM_LONG=1 $GO test -count=1 -v -timeout 180m ./integration/cluster ./integration/power ./mvcc >"$dir/others.log" 2>&1 ||
  { echo "FAIL: integration/cluster, power or mvcc, see $dir/others.log"; failed=1; }

echo
cat "$dir/linear.txt"
echo simulation
sed -n 's/^ *[a-z_]*_test.go:[0-9]*: \(.*seeds.*\)/  \1/p' "$dir/sim.log"
echo planted bugs
grep -E '^ *\| |caught by' "$dir/planted.log"
grep -hE '^(ok|FAIL)' "$dir"/*.log
exit $failed
