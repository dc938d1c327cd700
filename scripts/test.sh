#!/usr/bin/env bash
# Installs tinv and its development tools in .venv, and runs the tests; further words go to pytest.
set -euo pipefail
EXTRAS='[dev]'
source "$(dirname "$0")/environment.sh"
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 "$@"
