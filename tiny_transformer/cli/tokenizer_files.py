"""In which form `tiny tokenizer train` and `extend` write a tokenizer: what each form can hold, where it goes, what it leaves out.

Left out: the forms themselves (tokenization/files.py, hugging_face.py, vocabulary_files.py). Read before: those.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_transformer.cli.tokenizer_pieces import kind_of
from tiny_transformer.cli.tokenizer_source import check_target
from tiny_transformer.config import check, check_choice
from tiny_transformer.tokenization.files import save_tokenizer
from tiny_transformer.tokenization.hugging_face import save_tokenizer_json
from tiny_transformer.tokenization.registry import KINDS

FORMATS: dict[str, tuple[str, ...]] = {
    "tiny": tuple(KINDS),
    "huggingface": tuple(KINDS),
    "gpt2": ("bpe",),
    "tiktoken": ("bpe",),
    "wordpiece": ("wordpiece",),
}
"""Form → the kinds that it can hold."""


def check_form(form: str, kind: str) -> None:
    """Raise ConfigError for an unknown form, and for one that can't hold the kind."""
    check_choice("format", form, tuple(FORMATS))
    fitting = ", ".join(name for name, kinds in FORMATS.items() if kind in kinds)
    check(kind in FORMATS[form], f"--format {form} with a {kind} tokenizer", f"it can be saved as {fitting}", "Pick one of these")


def targets(form: str, out: str | None) -> list[Path]:
    """The files that will be written. Raises ConfigError for no name, and for one that does not suit the form."""
    check(bool(out), "no --out", "the tokenizer needs a file", "Try --out tok.json")
    path = Path(out or "")
    if form == "gpt2":
        check(not path.suffix and not path.is_file(), f"--out {path}", "vocab.json and merges.txt go into a folder", "Try --out mine")
        return [path / "vocab.json", path / "merges.txt"]
    if form == "wordpiece":
        check(path.name == "vocab.txt", f"--out {path}", "programs know this file by the name vocab.txt", "Try --out mine/vocab.txt")
    return [path]


def check_targets(paths: Sequence[Path], *, overwrite: bool, sources: Sequence[Path | None] = ()) -> None:
    """Raise ConfigError before any work, where one of the files could not, or must not, be written."""
    for path in paths:
        check_target(path, overwrite=overwrite, sources=sources)
        above = next(folder for folder in path.absolute().parents if folder.exists())
        check(above.is_dir(), f"--out {path}", f"{above} is a file, and no folder", "Choose another name")


def write(tokenizer: Any, form: str, paths: Sequence[Path]) -> str:
    """Write it, each file whole or not at all. Returns what this form leaves out, in one line; empty when nothing."""
    check_form(form, kind_of(tokenizer))
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    special = list(getattr(tokenizer, "special_tokens", ()))
    if form == "huggingface":
        save_tokenizer_json(tokenizer, paths[0])
    elif form == "gpt2":
        tokenizer.write_gpt2_files(*paths)
        return _left_out(f"the split pattern ({tokenizer.split})" if tokenizer.split != "gpt2" else "", special, ("<|endoftext|>",))
    elif form == "tiktoken":
        tokenizer.write_tiktoken(paths[0])
        return _left_out(f"the split pattern ({tokenizer.split})" if tokenizer.split != "gpt4" else "", special, ())
    elif form == "wordpiece":
        tokenizer.save_vocab_file(paths[0])
        from tiny_transformer.tokenization.wordpiece import BERT_SPECIAL

        return _left_out("", special, BERT_SPECIAL)
    else:
        save_tokenizer(tokenizer, paths[0])
    return ""


def _left_out(pattern: str, special: Sequence[str], known: Sequence[str]) -> str:
    """What a reader of the file can't know."""
    lost = [name for name in special if name not in known]
    parts = [*([pattern] if pattern else []), *([f"which tokens are special ({', '.join(lost)})"] if lost else [])]
    return f"these files do not say {' and '.join(parts)}: tell the program that reads them" if parts else ""


def form_of(path: Path) -> str:
    """The form to write an extended tokenizer in: a tokenizer.json's own, else ours."""
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "tiny"
    return "huggingface" if isinstance(values, dict) and isinstance(values.get("model"), dict) else "tiny"  # "model" may be a word too


if __name__ == "__main__":
    for kind in KINDS:
        print(f"{kind:10}", ", ".join(form for form, kinds in FORMATS.items() if kind in kinds))
