"""Type openings, the model continues them: the same as `tiny chat`, flag for flag."""

import sys

try:
    from tiny_transformer.cli.main import main
except ModuleNotFoundError:
    sys.exit("tools/interactive.py: the package is not installed. Run: pip install -e .")

if __name__ == "__main__":
    sys.exit(main(["chat", *sys.argv[1:]]))
