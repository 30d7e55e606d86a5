#!/bin/sh
# Make a virtual environment with exactly the versions and hashes of constraints.txt, and this project in it.
# Usage: sh scripts/setup.sh .venv
set -eu

venv=$1
export UV_COMPILE_BYTECODE=1

find_python() {
    for name in python3.13 python3.12 python3.11 python3.14 python3 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "Python 3.11 or newer is needed, and none was found" >&2
    exit 1
}

if uv --version >/dev/null 2>&1; then
    uv=uv
    [ -x "$venv/bin/python" ] || uv venv --quiet --python "$(find_python)" "$venv"
else
    # uv itself comes with the hash of constraints.txt.
    [ -x "$venv/bin/python" ] || "$(find_python)" -m venv "$venv"
    uv="$venv/bin/uv"
    if ! [ -x "$uv" ]; then
        awk '/^uv==/ {keep = 1} keep {print; if ($0 !~ /\\$/) exit}' constraints.txt >"$venv/uv.txt"
        "$venv/bin/python" -m pip install --quiet --require-hashes -r "$venv/uv.txt"
    fi
fi

"$uv" pip install --python "$venv/bin/python" --require-hashes -r constraints.txt
# hatchling is in the environment already: nothing is fetched to build this project.
"$uv" pip install --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m compileall -q src  # or every start compiles it where .pyc files are not written
