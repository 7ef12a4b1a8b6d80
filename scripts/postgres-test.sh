#!/usr/bin/env bash
# A throwaway PostgreSQL cluster for tests. It listens on loopback with a random
# port and password and does not sync to disk: never keep data in it.
#
#   postgres-test.sh start DIR       start a cluster in DIR, which must not exist; prints its URL
#   postgres-test.sh url DIR         print the URL
#   postgres-test.sh stop DIR        stop it and delete DIR
#   postgres-test.sh run COMMAND…    run COMMAND with TEST_DATABASE_URL set, then stop
#
# A cluster that nobody stops ends by itself after POSTGRES_TEST_LIFE (default 3h).
set -euo pipefail

say() { printf 'postgres-test: %s\n' "$*" >&2; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

bin=
for d in "$(dirname "$(command -v initdb || echo none)")" $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -V); do
	if [ -x "$d/initdb" ] && [ -x "$d/postgres" ]; then bin=$d; fi
done

# PostgreSQL refuses to run as root.
as=()
if [ "$(id -u)" = 0 ]; then as=(runuser -u postgres --); fi

start() {
	local dir=$1 port password url try
	[ -n "$bin" ] || { say "no PostgreSQL server found; run scripts/postgres-install.sh"; return 1; }
	[ ! -e "$dir" ] || { say "$dir exists; stop the cluster in it first"; return 1; }
	mkdir -p "$(dirname "$dir")"
	if [ "$(id -u)" = 0 ]; then install -d -o postgres -m 700 "$dir"; else install -d -m 700 "$dir"; fi
	dir=$(cd "$dir" && pwd)
	password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	(umask 077 && echo "$password" >"$dir/password")
	if [ "$(id -u)" = 0 ]; then chown postgres "$dir/password"; fi
	cd /
	"${as[@]}" "$bin/initdb" -D "$dir/data" -U postgres -A scram-sha-256 --pwfile "$dir/password" -E UTF8 --locale=C --no-sync >"$dir/init.log" 2>&1 ||
		{ cat "$dir/init.log" >&2; return 1; }
	local life=()
	if command -v timeout >/dev/null; then life=(timeout --signal=INT "${POSTGRES_TEST_LIFE:-3h}"); fi
	for try in 1 2 3 4 5 6 7 8; do
		port=$((20000 + (RANDOM * 32768 + RANDOM) % 40000))
		url="postgres://postgres:$password@127.0.0.1:$port/postgres?sslmode=disable"
		setsid "${as[@]}" "${life[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
			-c fsync=off -c full_page_writes=off -c max_connections=200 -c shared_buffers="${POSTGRES_TEST_BUFFERS:-256MB}" \
			-c max_wal_size=4GB -c logging_collector=off >"$dir/log" 2>&1 </dev/null &
		local server=$!
		local polls=300
		while kill -0 "$server" 2>/dev/null && ((polls-- > 0)); do
			if "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && [ "$(sed -n 4p "$dir/data/postmaster.pid" 2>/dev/null)" = "$port" ]; then
				(umask 077 && echo "$url" >"$dir/url")
				disown "$server"
				echo "$url"
				return 0
			fi
			sleep 0.1
		done
	done
	cat "$dir/log" >&2
	say "the server did not start"
	return 1
}

stop() {
	local dir=$1
	(cd / && "${as[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1) || true
	rm -rf "$dir"
}

[ $# -ge 1 ] || usage
command=$1
shift
case $command in
start)
	[ $# = 1 ] || usage
	start "$1"
	;;
url)
	[ $# = 1 ] || usage
	[ -r "$1/url" ] || { say "no cluster in $1"; exit 1; }
	cat "$1/url"
	;;
stop)
	[ $# = 1 ] || usage
	[ -d "$1/data" ] || { say "no cluster in $1"; exit 1; }
	stop "$(cd "$1" && pwd)"
	;;
run)
	[ $# -ge 1 ] || usage
	here=$PWD
	parent=$(mktemp -d)
	chmod 755 "$parent"
	trap 'cd /; if [ -d "$parent/pg/data" ]; then stop "$parent/pg"; fi; rm -rf "$parent"' EXIT
	trap 'exit 130' INT TERM
	TEST_DATABASE_URL=$(start "$parent/pg")
	export TEST_DATABASE_URL
	cd "$here"
	"$@"
	;;
*) usage ;;
esac
