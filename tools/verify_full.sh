#!/bin/sh
# Run lessons with their real parameters, one after another, and note each in benchmarks/verified.json.
#   tools/verify_full.sh "01 04" [--set NAME=VALUE …]      "" for all; a lesson that fails does not stop the others
set -u
cd "$(dirname "$0")/.."
lessons=${1:-$(ls lessons | cut -d_ -f1)}
[ $# -eq 0 ] || shift

# What a lesson's section 1 asks for once; where it cannot be had, the lesson itself says so.
fetch() {
    case $1 in
    02 | 11)
        [ -d Chinese-medical-dialogue-data ] ||
            git clone -q --depth 1 https://github.com/Toyhom/Chinese-medical-dialogue-data
        ;;
    10)
        version=$(.venv/bin/python -c "from helpers import runtime; print(runtime.VLLM)")
        [ -x .vllm/bin/vllm ] ||
            { .venv/bin/uv venv -q .vllm && .venv/bin/uv pip install -q --python .vllm "vllm==$version"; }
        ;;
    esac
}

failed=
for lesson in $lessons; do
    fetch "$lesson"
    for language in en zh; do
        .venv/bin/course run "$lesson" --lang "$language" --full --verified "$@" || failed="$failed $lesson-$language"
    done
done
.venv/bin/course build
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
