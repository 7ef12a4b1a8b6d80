#!/usr/bin/env bash
# Installs PostgreSQL (15 or newer) with pgvector (0.8 or newer), for tests and
# for trying the PostgreSQL store on one machine. Does nothing where both are
# there. Installing needs root on Debian or Ubuntu; elsewhere it says what is
# missing.
#
# Debian 12 has no pgvector. It is then built from the source package of a newer
# Debian, fetched from the mirror that apt already uses and checked by apt's keys.
set -euo pipefail
unset MAKEFLAGS MFLAGS MAKELEVEL # of a make that runs this; they are not for pgvector

want_pg=15
want_vector=0.8.0   # iterative index scans
good_vector=0.8.4   # mends a damaged graph after deletions

say() { printf 'postgres-install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

# config prints the path of the newest pg_config that belongs to a server.
config() {
	local c v best=0 found=
	for c in /usr/lib/postgresql/*/bin/pg_config /usr/pgsql-*/bin/pg_config "$(command -v pg_config || true)"; do
		[ -x "$c" ] && [ -x "$("$c" --bindir)/initdb" ] || continue
		v=$("$c" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
		if [ "$v" -gt "$best" ]; then best=$v found=$c; fi
	done
	if [ "$best" -ge "$want_pg" ]; then echo "$found"; fi
}

# vector prints the version of pgvector that the server of pg_config $1 has.
vector() {
	sed -n "s/^default_version = '\(.*\)'/\1/p" "$("$1" --sharedir)/extension/vector.control" 2>/dev/null || true
}

done_if_ready() {
	local c v
	c=$(config)
	[ -n "$c" ] || return 0
	v=$(vector "$c")
	[ -n "$v" ] && at_least "$v" "$want_vector" || return 0
	at_least "$v" "$good_vector" || say "pgvector $v works, but $good_vector or newer is better: it mends an index bug"
	say "ready: $("$c" --version), pgvector $v"
	exit 0
}

done_if_ready

c=$(config)
missing="pgvector $want_vector or newer for ${c:+$("$c" --version), in $("$c" --sharedir)/extension}${c:-the server}"
[ -n "$c" ] || missing="PostgreSQL $want_pg or newer (server and initdb), and pgvector $want_vector or newer for it"
command -v apt-get >/dev/null || die "missing: $missing. Install them with this system's package manager (on macOS: brew install postgresql@17 pgvector)"
[ "$(id -u)" = 0 ] || die "missing: $missing. Run this script as root, or ask an administrator to"

export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)' || true; }

if [ -z "$(candidate postgresql)" ] || [ -z "$(candidate gcc)" ]; then
	apt-get update -qq || die "apt-get update did not work; see above"
fi
if [ -z "$c" ]; then
	server=$(apt-cache depends postgresql | sed -n 's/.*Depends: \(postgresql-[0-9]*\)$/\1/p' | head -1)
	at_least "${server#postgresql-}" "$want_pg" || die "this system packages ${server:-no PostgreSQL}; PostgreSQL $want_pg or newer is needed"
	install "$server" || { apt-get update -qq && install "$server"; } || die "could not install $server; see above"
	c=$(config)
fi
major=$("$c" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')

if [ -n "$(candidate "postgresql-$major-pgvector")" ]; then
	install "postgresql-$major-pgvector" || die "could not install postgresql-$major-pgvector; see above"
	done_if_ready
fi

say "building pgvector for PostgreSQL $major from Debian's source package"
command -v gcc >/dev/null && command -v make >/dev/null || install gcc make libc6-dev || die "could not install gcc and make; see above"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | sort -u | head -1 || true)
[ -n "$mirror" ] || die "missing: pgvector for PostgreSQL $major. Apt has no Debian mirror to take its source from; install pgvector by hand"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt_source() {
	apt-get -o Dir::Etc::sourcelist="$work/list.sources" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
		-o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}
# A mirror may list a release that it does not have yet; an older one will do.
got=
for suite in testing unstable stable; do
	rm -rf lists cache pgvector_*
	mkdir -p lists/partial cache/archives/partial
	printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$mirror" "$suite" >list.sources
	if apt_source update -qq 2>>fetch.log && apt_source source --download-only -qq pgvector >/dev/null 2>>fetch.log; then
		got=$(ls pgvector_*.orig.tar.gz)
		got=${got#pgvector_} got=${got%.orig.tar.gz}
		at_least "$got" "$want_vector" && break
		got=
	fi
done
[ -n "$got" ] || { cat fetch.log >&2; die "missing: pgvector for PostgreSQL $major. Its source package could not be fetched from apt's mirror"; }
mkdir pgvector
tar xzf pgvector_*.orig.tar.gz -C pgvector --strip-components=1

# Only the headers of the development package are needed, not its compilers.
make=(make -s with_llvm=no OPTFLAGS= "PG_CONFIG=$c")
if [ ! -e "$("$c" --includedir-server)/postgres.h" ]; then
	apt-get -o APT::Sandbox::User=root download -qq "postgresql-server-dev-$major" || die "could not download postgresql-server-dev-$major; see above"
	dpkg -x postgresql-server-dev-*.deb dev
	make+=("PG_CPPFLAGS=-I$work/dev$("$c" --includedir-server)")
fi
(cd pgvector && "${make[@]}" -j2 && "${make[@]}" install) >build.log 2>&1 || { tail -20 build.log >&2; die "pgvector $got did not build"; }
done_if_ready
die "pgvector $got was installed, but $("$c" --sharedir)/extension/vector.control does not say so"
