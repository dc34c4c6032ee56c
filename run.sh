#!/usr/bin/env bash
# Waggle in one command. `./run.sh help` lists what it can do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
	cat <<'EOF'
./run.sh          build, check the machine, run every experiment at effort `quick`,
                  draw the figures and write the report (under 5 minutes)
./run.sh smoke    the same at effort `smoke` (about a minute)
./run.sh full     the same at effort `full` (an hour)
./run.sh build    leaves bin/waggle
./run.sh test     installs what the tests need (as root, on Debian) and runs them
./run.sh test-vm  checks the copy ledger on a stock kernel in a virtual machine
EOF
}

say() { printf '\n== %s\n' "$*"; }

build() {
	command -v go >/dev/null || {
		echo "run.sh: 'go' is not on the PATH: install Go 1.26 or newer first (https://go.dev/dl)" >&2
		exit 1
	}
	# With the commit in it, which each run records; without C, so that it is the
	# same program where there is no C compiler.
	CGO_ENABLED=0 go build -buildvcs=auto -o bin/waggle ./cmd/waggle
}

sweep() {
	local effort=$1 out status=0
	out=results/local/$(date +%Y%m%d-%H%M%S)
	say "build"
	build
	say "check the machine"
	bin/waggle doctor
	say "sweep (effort $effort)"
	bin/waggle run all --effort "$effort" --out "$out" || status=$?
	if [ -f "$out/report.html" ]; then
		say "done: open $out/report.html (or read $out/summary.md)"
	fi
	return "$status"
}

case "${1-}" in
"") sweep quick ;;
smoke | full) sweep "$1" ;;
build) build ;;
test) exec .ci/test ;;
test-vm) exec .ci/test-vm ;;
help | -h | --help) usage ;;
*)
	usage >&2
	echo "run.sh: unknown command '$1'" >&2
	exit 2
	;;
esac
