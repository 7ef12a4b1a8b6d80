#!/usr/bin/env bash
# Checks the source: format, vet, lints, known vulnerabilities, modules and
# generated files. It tells all that it finds before it fails.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
go=$PWD/scripts/go.sh
tool() { "$go" tool -modfile=tools/go.mod "$@"; }
bad=0
check() {
	local what=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "ok    $what"
	else
		echo "BAD   $what"
		echo "$out" | sed 's/^/      /'
		bad=1
	fi
}

unformatted() {
	local files
	files=$("$("$go" env GOROOT)/bin/gofmt" -l $(git ls-files -co --exclude-standard '*.go')) || return 1
	[ -z "$files" ] || { echo "$files"; echo "run gofmt -w on these"; return 1; }
}

# The two modules' own sums are checked where the modules are used; tidy
# reports what go.mod names too much or too little of.
check "gofmt" unformatted
check "go vet" "$go" vet ./...
check "go vet, bench" "$go" -C bench vet ./...
check "go mod tidy" "$go" mod tidy -diff
check "go mod tidy, bench" "$go" -C bench mod tidy -diff
check "golangci-lint, staticcheck among them" tool golangci-lint run ./...
check "generated files" "$go" test -count=1 -run '^(TestGenerated|TestConfigPage)$' ./lifecycle ./proof/model ./cmd/rag-processor

# Its database is fetched from the network at each run. Not to reach it says
# nothing about this program.
out=$(tool govulncheck ./... 2>&1)
case $? in
0) echo "ok    govulncheck" ;;
3)
	echo "BAD   govulncheck"
	echo "$out" | sed 's/^/      /'
	bad=1
	;;
*)
	echo "note  govulncheck: not checked: $(echo "$out" | tail -1)"
	;;
esac
exit $bad
