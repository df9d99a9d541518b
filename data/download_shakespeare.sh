#!/usr/bin/env bash
# Puts Tiny Shakespeare (1.1 MB) at data/shakespeare.txt, verified by its SHA-256, whatever folder this is called from.
# Taken from the folder that TINY_CORPORA names, from the cache, or from the web. Without any of them: one line, exit 1.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
for python in "$root/.venv/bin/python" "$root/.venv/Scripts/python.exe" python3 python; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m tiny_transformer.corpora.download shakespeare "$root/data/shakespeare.txt"
    fi
done
echo "Python 3.11 or newer is needed: install it from https://www.python.org, or run \"make test\" once" >&2
exit 1
