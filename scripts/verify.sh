#!/usr/bin/env bash
# The proofs that need no hours: every order of events in small worlds, random
# long ones, the specification and its broken variants, and the mutants.
#
#   verify.sh [explore] [simulate] [model] [mutants]     some of them; all by default
#
# STATES bounds the states of each small world (those that are deep get a twentieth),
# STEPS the random steps.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
go=$PWD/scripts/go.sh
states=${STATES:-250000}
steps=${STEPS:-1000000}
parts=("$@")
[ $# -gt 0 ] || parts=(explore simulate model mutants)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cores=$(getconf _NPROCESSORS_ONLN)

# worlds runs the test $1 of the explorer in as many processes as there are
# cores, in $2 parts; the rest are flags. A world lives on one core.
worlds() {
	local test=$1 shards=$2
	shift 2
	[ -x "$work/explore.test" ] || "$go" test -c -o "$work/explore.test" ./proof/explore
	# Goroutines are many and short, so that their stacks had better begin large.
	seq "$shards" | GOMAXPROCS=1 GOGC=400 GODEBUG=adaptivestackstart=1 RAG_TRACES=$work/logs xargs -P "$cores" -I{} "$work/explore.test" -test.run "^$test\$" -test.v -test.timeout 60m -shard "{}/$shards" "$@" |
		grep -v -e '^=== ' -e '^PASS$' -e '^--- PASS'
}

begun=$SECONDS
for part in "${parts[@]}"; do
	start=$SECONDS
	case $part in
	explore)
		scripts/install.sh spin gcc
		"$go" test -c -o "$work/explore.test" ./proof/explore
		mkdir -p "$work/logs"
		worlds TestExplore "$("$work/explore.test" -worlds)" -states "$states"
		"$go" run ./proof/model traces "$work/logs"
		;;
	simulate) worlds TestSimulate "$cores" -steps $((steps / cores)) ;;
	model)
		scripts/install.sh spin gcc
		"$go" run ./proof/model
		;;
	mutants)
		scripts/postgres-install.sh
		scripts/postgres-test.sh run "$go" run ./proof/mutants
		;;
	*)
		echo "verify.sh: there is no part named $part" >&2
		exit 2
		;;
	esac 2>&1 | tee "$work/$part.log"
	echo "$((SECONDS - start))" >"$work/$part.seconds"
done

sum() { awk -v n="$1" -F'\t' '$1 == "sum" { t += $n } END { printf "%d", t }' "$2"; }
printf '\n%-10s %8s  %s\n' proof seconds what
for part in "${parts[@]}"; do
	case $part in
	explore)
		what="$(sum 2 "$work/explore.log") distinct states, $(sum 3 "$work/explore.log") steps, $(sum 4 "$work/explore.log") ends; $(sum 5 "$work/explore.log") of $(grep -c '^sum' "$work/explore.log") worlds whole; nothing untrue; $(tail -1 "$work/explore.log")"
		;;
	simulate) what="$(sum 2 "$work/simulate.log") random steps in $(sum 3 "$work/simulate.log") worlds; nothing untrue" ;;
	*) what=$(grep -v '^$' "$work/$part.log" | tail -1) ;;
	esac
	printf '%-10s %8d  %s\n' "$part" "$(cat "$work/$part.seconds")" "$what"
done
printf '%-10s %8d\n' all $((SECONDS - begun))
