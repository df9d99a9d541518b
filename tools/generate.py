"""Let a trained model write: the same as `tiny generate`, flag for flag."""

import sys

try:
    from tiny_transformer.cli.main import main
except ModuleNotFoundError:
    sys.exit("tools/generate.py: the package is not installed. Run: pip install -e .")

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
