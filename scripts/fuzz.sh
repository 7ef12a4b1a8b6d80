#!/usr/bin/env bash
# Runs every fuzz test, one after the other: fuzz.sh DURATION.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file _ fuzz; do
	case $file in ./bench/*) continue ;; esac
	scripts/go.sh test -run '^$' -fuzz "^${fuzz#func }\$" -fuzztime "$1" "$(dirname "$file")"
done
