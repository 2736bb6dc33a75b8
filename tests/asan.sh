#!/bin/sh
# Runs the core's tests against extensions built with AddressSanitizer and UBSan.
#
# An error ends the worker that met it at once, and with it the run: none is begun in its place. Of the leaks told at its end only those count that an extension of ours allocated
# itself (frame 1 of the allocation): the interpreter never frees all it has.
set -eu
cd "$(dirname "$0")/.."
copy=build/asan
python=$PWD/.venv/bin/python
flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"

tests/sanitized.sh $copy gcc "$flags"
cd $copy
rm -f report.*

tests=""
for room in core events unit vectors flows stream handover rules/test_handed_over.py; do
    [ ! -e tests/$room ] || tests="$tests tests/$room"
done
status=0
# PYTHONMALLOC: every Python object in an allocation of its own, so that an overrun of one is seen.
# --capture=sys: pytest's usual capture of stderr itself would swallow the report of an aborted run.
ASAN_OPTIONS=detect_leaks=1:log_path=$PWD/report LSAN_OPTIONS=exitcode=0 UBSAN_OPTIONS=print_stacktrace=1 \
LD_PRELOAD=$(gcc -print-file-name=libasan.so) PYTHONMALLOC=malloc PYTHONPATH=$PWD/src \
    "$python" -m pytest -n "$(nproc)" --max-worker-restart=0 -m "not live and not sources" --capture=sys \
    -p no:cacheprovider $tests || status=$?

for report in report.*; do
    [ -e "$report" ] || continue
    if ! grep -q "ERROR: LeakSanitizer" "$report"; then
        cat "$report" >&2
        status=1
    elif awk -v RS= -v ORS="\n\n" '/ leak of .*\n +#0 [^\n]*\n +#1 [^\n]*\/cext\// { print; found = 1 } END { exit !found }' \
        "$report" >&2; then
        status=1
    fi
done
exit $status
