"""Let the Shakespeare model write: `tiny generate`, by default from checkpoints/shakespeare."""

import sys

try:
    from tiny_transformer.cli.main import main
except ModuleNotFoundError:
    sys.exit("tools/shakespeare_generate.py: the package is not installed. Run: pip install -e .")

if __name__ == "__main__":
    sys.exit(main(["generate", "--checkpoint", "checkpoints/shakespeare", *sys.argv[1:]]))
