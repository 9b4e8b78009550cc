#!/bin/sh
# Checks the daemon: format, vet, staticcheck, tests under the race detector, and a short fuzz of every parser.
#   GO=path/to/go   another Go than the one on PATH
#   FUZZTIME=2s     how long each fuzz target runs; 0 leaves them out (their seeds are part of the tests)
# GOMODCACHE, GOCACHE and GOTOOLCHAIN are obeyed as go does. Nothing is installed.
set -eu
cd "$(dirname "$0")"
go=${GO:-go}
fuzztime=${FUZZTIME:-2s}
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

say() { printf '== %s\n' "$*"; }

say "$("$go" version)"
say gofmt
listed=$("$("$go" env GOROOT)/bin/gofmt" -l .)
if [ -n "$listed" ]; then
    printf 'not formatted; run gofmt -w on:\n%s\n' "$listed" >&2
    exit 1
fi
say vet
"$go" vet ./...
say "staticcheck ($staticcheck)"
"$go" run "$staticcheck" ./...

race=-race
if [ "$("$go" env CGO_ENABLED)" != 1 ] || ! command -v "$("$go" env CC)" >/dev/null 2>&1; then
    race=
    printf 'WARNING: no C compiler (or CGO_ENABLED=0): the tests run WITHOUT the race detector. Install gcc for it.\n' >&2
fi
say "tests ${race:-without the race detector}"
"$go" test ${race:+"$race"} -count=1 ./...

if [ "$fuzztime" = 0 ]; then
    say "no fuzzing (FUZZTIME=0)"
    exit 0
fi
# Read from the sources: to be asked for them, each package would be built once more.
for file in $(grep -rl --include='*_test.go' '^func Fuzz' .); do
    package=$(dirname "$file")
    for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
        say "fuzz $package $target for $fuzztime"
        "$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" -fuzzminimizetime 1s "$package"
    done
done
say "all is well"
