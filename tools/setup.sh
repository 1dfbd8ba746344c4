#!/bin/sh
# Creates .venv and installs the lock into it; does nothing when both are already so.
# PYTHON=/path/to/python3.12 chooses the interpreter; PIP_INDEX_URL or pip's configuration chooses the mirror.
set -eu
cd "$(dirname "$0")/.."

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

want=$(cat requirements.txt tools/uv.txt pyproject.toml tools/setup.sh | cksum)
if [ -x .venv/bin/course ] && usable .venv/bin/python && [ "$(cat .venv/.lock 2>/dev/null)" = "$want" ]; then
    exit 0
fi

if ! { [ -x .venv/bin/python ] && usable .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if usable "$candidate"; then python=$candidate; break; fi
    done
    [ -n "$python" ] || die "needs Python 3.11, 3.12 or 3.13; none found${PYTHON:+ at PYTHON=$PYTHON}. Install one (python.org, apt, brew) and run this again."
    echo "setup: creating .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || die "'$python -m venv' failed. On Debian and Ubuntu: apt install python3-venv."
fi

# uv installs from the same lock as pip would, in a tenth of the time, and keeps a shared cache.
pip=".venv/bin/python -m pip --disable-pip-version-check"
[ -x .venv/bin/uv ] || $pip install -q --no-deps --require-hashes -r tools/uv.txt || die "the package index could not be reached; set PIP_INDEX_URL to a mirror and run this again."
if [ -z "${UV_DEFAULT_INDEX:-}" ]; then
    # `config list` reads every place where pip may be set, a file in PIP_CONFIG_FILE too; `config get` does not.
    index=${PIP_INDEX_URL:-$($pip config list 2>/dev/null | sed -n "s/^global\.index-url='\(.*\)'$/\1/p")}
    [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
fi
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"
# Certificates as pip takes them: from the system, where an institution keeps its own.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
echo "setup: installing the lock (the first time about 3 GB to download)"
uv=".venv/bin/uv pip install --python .venv/bin/python"
# Bytecode now, in parallel: `import unsloth` compiles 6,500 modules otherwise, each time where Python may not keep them.
$uv --compile-bytecode --no-deps --require-hashes -r requirements.txt || die "the lock could not be installed; the lines above say why."
$uv -q --no-deps --no-build-isolation --editable . || die "the course could not be installed into .venv."
printf '%s\n' "$want" > .venv/.lock
