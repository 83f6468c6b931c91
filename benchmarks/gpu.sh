#!/usr/bin/env bash
# Measures on a GPU all that needs one, in at most ten minutes; with --dry in small on the CPU:
#
#     bash benchmarks/gpu.sh [--dry] [--out FOLDER]
#
# The interpreter is $PYTHON, else that of .venv, else python3. The package must be installed in it, since results name
# its version; where there is no network: pip install --no-index --no-deps --no-build-isolation .
# Comparing precisions trains the drawn world's networks, on the CPU, unless $ADVBN_CACHE names a folder that has them.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x "$root/.venv/bin/python" ]; then PYTHON="$root/.venv/bin/python"; fi
fi
# The folder is not changed, so that --out means what the caller means by it.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# As the command line does: threads that wait must not keep cores busy.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
export PYTHONUNBUFFERED=1
# Not with -m, because processes that it starts would then import all of it again.
exec "$PYTHON" -c 'from benchmarks.gpu import main; main(prog_name="gpu.sh")' "$@"
