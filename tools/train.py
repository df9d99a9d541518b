"""Train on any text: the same as `tiny train`, flag for flag."""

import sys

try:
    from tiny_transformer.cli.main import main
except ModuleNotFoundError:
    sys.exit("tools/train.py: the package is not installed. Run: pip install -e .")

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
