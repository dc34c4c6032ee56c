#!/usr/bin/env bash
# Waggle in one command. `./run.sh help` lists what it can do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
	cat <<'EOF'
./run.sh          build, check the machine, run the main experiments at effort `quick`,
                  draw the figures and write the report (under 5 minutes)
./run.sh smoke    the same with all experiments, at effort `smoke` (about a minute)
./run.sh full     the same with all experiments, at effort `full` (an hour)
./run.sh build    leaves bin/waggle
./run.sh test     installs what the tests need (as root, on Debian) and runs them
./run.sh paper    builds paper/waggle.pdf from results/reference; with a run directory
                  behind it, from that run, and marks what differs from the reference
./run.sh test-vm  checks the copy ledger on a stock kernel in a virtual machine; `test-vm measure`
                  counts the copies of read paths inside that kernel
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
	local effort=$1 out status=0 budget=() experiments=(all)
	# Time that is left goes to comparisons that are not decided yet.
	# What the published claims are about, and what else may have decided a result:
	# the rest is for effort `full`, or for who asks.
	[ "$effort" != quick ] || {
		budget=(--budget 3m)
		experiments=(copies read-path lookup-path relay-path write-path sensitivity)
	}
	out=results/local/$(date +%Y%m%d-%H%M%S)
	say "build"
	build
	say "check the machine"
	bin/waggle doctor
	say "sweep (effort $effort)"
	bin/waggle run "${experiments[@]}" --effort "$effort" --out "$out" "${budget[@]}" || status=$?
	if [ "$effort" != smoke ] && [ -f "$out/report.html" ]; then
		simulate "$out"
	fi
	if [ -f "$out/report.html" ]; then
		say "done: open $out/report.html (or read $out/summary.md)"
	fi
	return "$status"
}

# What this machine's costs say of larger ones: seconds. A run that can't be
# calibrated from, for lack of paths, is a run all the same.
simulate() {
	say "simulate (from this run's costs)"
	bin/waggle calibrate "$1" || return 0
	bin/waggle sim scale-out --effort smoke --machine rack-25g --calibration "$1/calibration.json" --out "$1/simulated" ||
		echo "run.sh: the simulation failed; what was measured is complete"
}

# What the paper needs, and the Debian package it is in.
install_tex() {
	local packages=(texlive-publishers texlive-latex-extra texlive-fonts-recommended texlive-pictures tex-gyre)
	if command -v pdflatex >/dev/null && kpsewhich acmart.cls tgtermes.sty tikz.sty >/dev/null; then
		return
	fi
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "run.sh: the paper needs LaTeX: install ${packages[*]} (Debian's names), then try again" >&2
		exit 3
	fi
	say "install LaTeX (about 150 MB)"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

paper() {
	local from=(results/reference) log=generated/latex.log
	[ $# -eq 0 ] || from=("$1" --reference results/reference)
	say "build"
	build
	install_tex
	say "numbers, verdicts and figures"
	rm -rf paper/generated paper/waggle.pdf
	bin/waggle paper --text paper --out paper/generated "${from[@]}"
	say "typeset"
	# The date is that of the records, so that the same records give the same bytes.
	(
		cd paper
		SOURCE_DATE_EPOCH=$(cat generated/epoch)
		export SOURCE_DATE_EPOCH FORCE_SOURCE_DATE=1
		typeset_once() { pdflatex -interaction=nonstopmode -halt-on-error -output-directory generated waggle >"$log" 2>&1; }
		typeset_once && bibtex generated/waggle >>"$log" 2>&1 && typeset_once && typeset_once
	) || {
		echo "run.sh: LaTeX failed: see paper/$log" >&2
		exit 1
	}
	mv paper/generated/waggle.pdf paper/waggle.pdf
	say "done: open paper/waggle.pdf"
}

case "${1-}" in
"") sweep quick ;;
smoke | full) sweep "$1" ;;
build) build ;;
test) exec .ci/test ;;
test-vm) shift; exec .ci/test-vm "$@" ;;
paper) paper "${@:2}" ;;
help | -h | --help) usage ;;
*)
	usage >&2
	echo "run.sh: unknown command '$1'" >&2
	exit 2
	;;
esac
