"""Train on Tiny Shakespeare: `tiny train --recipe shakespeare`; every flag beside it changes that one setting."""

import sys

try:
    from tiny_transformer.cli.main import main
except ModuleNotFoundError:
    sys.exit("tools/shakespeare_train.py: the package is not installed. Run: pip install -e .")

if __name__ == "__main__":
    sys.exit(main(["train", "--recipe", "shakespeare", *sys.argv[1:]]))
