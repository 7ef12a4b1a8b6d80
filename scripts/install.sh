#!/usr/bin/env bash
# Installs programs that are missing: install.sh NAME…, where NAME is one of
# those below. Does nothing where they are there. Installing needs root on
# Debian or Ubuntu; elsewhere it says what is missing.
set -euo pipefail

# has succeeds if the program $1 is there.
has() {
	case $1 in
	chromium) command -v chromium || command -v chromium-browser || command -v google-chrome || command -v chrome ;;
	gcc) command -v gcc && [ -e /usr/include/stdlib.h -o "$(uname)" != Linux ] ;;
	pip) python3 -m pip --version ;;
	maven) command -v mvn ;;
	*) command -v "$1" ;;
	esac >/dev/null 2>&1
}

# packages prints the Debian packages that bring the program $1.
packages() {
	case $1 in
	gcc) echo gcc libc6-dev ;;
	ip) echo iproute2 ;;
	pip) echo python3-pip ;;
	soffice) echo libreoffice-writer-nogui libreoffice-calc-nogui libreoffice-impress-nogui ;;
	*) echo "$1" ;;
	esac
}

# use says what the program $1 is for.
use() {
	case $1 in
	chromium) echo "Chromium or Chrome, for the test of the web page" ;;
	gcc) echo "gcc and the C library's headers, for the race detector" ;;
	ip) echo "ip, which makes network namespaces" ;;
	git) echo "git, whose ignore rules are the measure of ours" ;;
	soffice) echo "LibreOffice, which reads old Office files" ;;
	spin) echo "spin, the model checker" ;;
	pip) echo "Python 3 with pip, which can bring Go and the runtime of the models" ;;
	maven) echo "Maven (mvn), which can bring the models" ;;
	*) echo "$1" ;;
	esac
}

missing=() wanted=()
for name; do
	if ! has "$name"; then
		missing+=("$name")
		wanted+=($(packages "$name"))
	fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

tell() {
	for name in "${missing[@]}"; do echo "missing: $(use "$name")" >&2; done
	echo "$1" >&2
	exit 1
}

command -v apt-get >/dev/null || tell "Install what is missing with this system's package manager, then try again"
[ "$(id -u)" = 0 ] || tell "Install what is missing, as root: apt-get install ${wanted[*]}"

echo "installing ${wanted[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"; }
install() { apt install -y --no-install-recommends "${wanted[@]}" >/dev/null; }
install 2>/dev/null || { apt update && install; } || tell "apt-get could not install ${wanted[*]}; its complaint stands above"
