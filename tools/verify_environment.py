"""Is everything in its place? The same as `tiny verify` and `make verify`, and it also works before anything is installed.

    python tools/verify_environment.py            every check, ending with a five-second training
    python tools/verify_environment.py --quick    without the training
    python tools/verify_environment.py --json     for programs
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAST_PYTHON = (3, 11)


def main() -> int:
    """Find the package, installed or beside this folder, and run its checks."""
    if sys.version_info < LEAST_PYTHON:
        print("FAIL  Python  {}.{}, must be 3.11 or newer".format(*sys.version_info[:2]))
        print("      -> install a newer Python, then: make PYTHON=/path/to/python3.11 verify")
        return 1
    try:
        from tiny_transformer import verify
    except ModuleNotFoundError:
        sys.path.insert(0, str(ROOT))  # not installed yet: the checks will say so
        from tiny_transformer import verify
    if sys.prefix == sys.base_prefix and (ROOT / ".venv").is_dir():
        print("This is not the environment in .venv. To use it: source .venv/bin/activate\n", file=sys.stderr)
    return verify.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
