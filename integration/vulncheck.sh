#!/usr/bin/env bash
# Looks for known vulnerabilities in what the programs really call:
# integration/vulncheck.sh [packages]. The database is Go's own, or KVORUM_VULNDB
# (such as file:///srv/vulndb, or https://vuln.go.dev to insist on it). A network
# without Go's database fails nobody's build, but is said in so many words.
set -uo pipefail
cd "$(dirname "$0")/.."
db=${KVORUM_VULNDB:-https://vuln.go.dev}
out=$("${GO:-go}" tool -modfile=tools/vuln/go.mod govulncheck -db "$db" "${@:-./...}" 2>&1)
code=$?
case $code in
0) echo "govulncheck: nothing known against this code in $db" ;;
3)
	echo "$out"
	echo "govulncheck: known vulnerabilities are called (above), by $db" >&2
	exit 1
	;;
*)
	if [[ -z ${KVORUM_VULNDB:-} && $out == *"fetching vulnerabilities"* ]]; then
		echo "govulncheck: NOT CHECKED: no answer from $db; KVORUM_VULNDB=file:///… names a copy of it" >&2
		exit 0
	fi
	echo "$out" >&2
	echo "govulncheck: failed, with the database $db" >&2
	exit 1
	;;
esac
