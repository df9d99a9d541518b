"""Let the WikiText-2 model write, and count how much it repeats itself and copies.

    python examples/wikitext/generate.py --model_path checkpoints/best_model.pt --prompt "The history of"
    python examples/wikitext/generate.py --model_path checkpoints/best_model.pt --prompt "The history of" --temperature 0
    python examples/wikitext/generate.py --model_path checkpoints/best_model.pt --prompt "The history of" --top-p 0.9

Every other flag goes on to `tiny generate`: see --help. A text ends where its line ends, or at --max-tokens.
checkpoints/best_model.pt, where there is no such file, is the one that train.py leaves in its run: checkpoints/wikitext2/best_model.pt.
"""

import sys
from pathlib import Path

try:
    from tiny_transformer.cli.main import main
    from tiny_transformer.recipes import recipe
except ModuleNotFoundError:
    sys.exit("examples/wikitext/generate.py: the package is not installed. Run: pip install -e .")


def found(path: str) -> str:
    """The path itself, or its name inside the run of that folder."""
    inside = Path(path).parent / Path(recipe("wikitext2").out).name / Path(path).name
    return str(inside) if not Path(path).exists() and inside.is_file() else path


def translated(argv: list[str]) -> list[str]:
    """The flags as `tiny generate` calls them."""
    words = list(argv)
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--model_path":
            words[i] = "--checkpoint" + equals + (found(value) if equals else "")
            if not equals and i + 1 < len(words):
                words[i + 1] = found(words[i + 1])
    return words


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    sys.exit(main(["generate", "--measure", *translated(sys.argv[1:])]))
