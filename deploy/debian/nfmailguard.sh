#!/bin/sh
# What it starts itself (`probe --from`) finds the same modules; the working directory holds none.
export PYTHONPATH=/usr/lib/nfmailguard PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
exec /usr/bin/python3 -m nfmailguard "$@"
