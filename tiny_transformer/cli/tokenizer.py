"""`tiny tokenizer`: make a tokenizer, use it, look inside, compare several, add tokens to one.

Each action has a module of its own (tokenizer_train.py, tokenizer_text.py, …) with its own flags, imported when it is asked for.
Read before: tokenization/.
"""

import importlib

from tiny_transformer.cli.main import unknown
from tiny_transformer.config import ConfigError

DESCRIPTION = """\
How text becomes ids: make a tokenizer, use it, look inside, compare several.

  tiny tokenizer train --corpus shakespeare --kind bpe --vocab-size 2048 --out tok.json
  tiny tokenizer encode tok.json --text "to be or not to be"
  tiny tokenizer decode tok.json 1024 257 311
  tiny tokenizer inspect tok.json --text "to be" --token " the"
  tiny tokenizer compare char bpe:1024 tok.json --corpus shakespeare --out compared.png
  tiny tokenizer extend tok.json --special "<|user|>" --out more.json

Where a tokenizer is asked for, each of these will do: a file that train wrote, a
tokenizer.json, vocab.json beside merges.txt, vocab.txt, a .tiktoken rank file, a folder
with one of them, a run, or a checkpoint (its tokenizer travels inside).

Every action has flags of its own: tiny tokenizer train --help"""

ACTIONS = {
    "train": "tokenizer_train",
    "encode": "tokenizer_encode",
    "decode": "tokenizer_decode",
    "inspect": "tokenizer_inspect",
    "compare": "tokenizer_compare",
    "extend": "tokenizer_extend",
}
"""Action → module of this package."""


def main(argv: list[str]) -> int:
    """Do one of them."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: tiny tokenizer {'|'.join(ACTIONS)} …\n\n{DESCRIPTION}")
        return 0
    if argv[0] not in ACTIONS:
        raise ConfigError(unknown("action", argv[0], list(ACTIONS)))
    return int(importlib.import_module(f"tiny_transformer.cli.{ACTIONS[argv[0]]}").main(argv[1:]))
