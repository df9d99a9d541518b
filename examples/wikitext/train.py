"""The WikiText-2 model: words of Wikipedia, 300 wide, 6 heads, 4 layers, 27 million parameters.

    python examples/wikitext/train.py --train_file data/train.txt --valid_file data/valid.txt
    python examples/wikitext/train.py --train_file data/train.txt --valid_file data/valid.txt --embeddings glove.6B.300d.txt

Without files the published text is fetched. Every other flag goes on to `tiny train --recipe wikitext2`: see --help. At the end
evaluate.py measures the best weights. docs/wikitext.md says what to expect, and what not to believe.
"""

import runpy
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

try:
    from tiny_transformer.cli.main import main
    from tiny_transformer.cli.settings import training_job, value_of
except ModuleNotFoundError:
    sys.exit("examples/wikitext/train.py: the package is not installed. Run: pip install -e .")

FLAGS = {"--train_file": "--data", "--valid_file": "--val-data"}


def translated(argv: list[str]) -> list[str]:
    """The flags as `tiny train` calls them; `--flag=value` is understood too."""
    return [FLAGS.get(flag, flag) + equals + value for flag, equals, value in (word.partition("=") for word in argv)]


def train(argv: list[str]) -> int:
    """Train, then measure; the exit code."""
    flags = translated(argv)
    base = [] if value_of(flags, "resume") else ["--recipe", "wikitext2"]
    helped = {"-h", "--help"} & set(flags)
    if helped:
        print(__doc__)
    code = main(["train", *base, *flags])
    if code or helped:
        return code
    out = value_of(flags, "resume") or training_job([*base, *flags]).out  # a --config file may name it too
    evaluate = runpy.run_path(str(Path(__file__).with_name("evaluate.py")))["evaluate"]
    with redirect_stdout(sys.stderr) if "--json" in flags else nullcontext():  # the result of the training alone is for programs
        return int(evaluate(["--model_path", out]))


if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
