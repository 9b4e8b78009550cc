#!/bin/sh
# .venv/bin/shoal is a link to this file, so it works from any folder and after the checkout was moved.
top=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
PYTHONPATH=$top${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
exec "$top/.venv/bin/python" -P -m orchestrator.cli "$@"
