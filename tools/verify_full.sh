#!/bin/sh
# Run lessons with their real parameters, one after another, and note each in benchmarks/verified.json.
#   tools/verify_full.sh "01 04" [--set NAME=VALUE …]      "" for all; a lesson that fails does not stop the others
set -u
cd "$(dirname "$0")/.."
lessons=${1:-$(ls lessons | cut -d_ -f1)}
[ $# -eq 0 ] || shift
failed=
for lesson in $lessons; do
    for language in en zh; do
        .venv/bin/course run "$lesson" --lang "$language" --full --verified "$@" || failed="$failed $lesson-$language"
    done
done
.venv/bin/course build
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
