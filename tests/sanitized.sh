#!/bin/sh
# Builds a copy of the extensions under sanitizers, so that the ordinary build stays as it is.
#
#   tests/sanitized.sh DIRECTORY COMPILER FLAGS
#
# Sources and tests go into DIRECTORY as they are now; what was built there before stays when
# neither the core's sources nor compiler and flags have changed.
set -eu
cd "$(dirname "$0")/.."
copy=$1 compiler=$2 flags=$3
python=$PWD/.venv/bin/python

key=$( { cat pyproject.toml setup.py; find cext -name '*.pyx' -o -name '*.pxd' -o -name '*.h' | LC_ALL=C sort | xargs cat; "$compiler" --version; "$python" -VV; echo "$flags"; } | sha256sum)
[ "$key" = "$(cat "$copy/built" 2>/dev/null)" ] || rm -rf "$copy"
mkdir -p "$copy"
find "$copy" -name '*.py' -delete
tar -c --exclude='*.so' --exclude='*.c' --exclude=__pycache__ --exclude=built LICENSE README.md pyproject.toml setup.py cext deploy docs src tests | tar -x -C "$copy"
[ -e "$copy/built" ] && exit
cd "$copy"
CC=$compiler LDSHARED="$compiler -shared" CFLAGS=$flags LDFLAGS=$flags \
    "$python" -W ignore setup.py -q build_ext --inplace
echo "$key" >built
