"""`tiny data`: which texts there are, what they look like, how to have, judge, clean and divide them, and to turn them into tokens.

The others have modules of their own (data_report.py and so on), imported when they are asked for.
Read before: corpora/.
"""

import importlib
import json
from collections import Counter
from dataclasses import asdict, dataclass

import tyro

from tiny_transformer import corpora
from tiny_transformer.cli.main import unknown
from tiny_transformer.cli.screen import Screen, clip, downloading, visible
from tiny_transformer.cli.settings import parse
from tiny_transformer.config import ConfigError, check

DESCRIPTION = """\
The built-in texts, and your own.

  tiny data list             which there are, and whether they need a network
  tiny data show pitches     its size, its characters, how it begins
  tiny data show my.txt      the same for a file
  tiny data download shakespeare
  tiny data report my.txt    what it is made of, and what is wrong with it
  tiny data clean my.txt --out my.clean.txt --all
  tiny data split my.txt --by document --out parts

  tiny data tokenize big.txt --tokenizer bpe --out tokens
  tiny data verify tokens    whether token files are whole
  tiny data batch pitches    what a model is shown, and how often

The last six have flags of their own: tiny data report --help
"""

ACTIONS = ("list", "show", "download", "report", "clean", "split", "tokenize", "verify", "batch")
_MODULES = {name: f"tiny_transformer.cli.data_{name}" for name in ("report", "clean", "split", "tokenize", "batch")}


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What `tiny data` accepts."""

    action: tyro.conf.Positional[str] = "list"
    """list, show, download, report, clean, split, tokenize, verify or batch."""
    name: tyro.conf.Positional[str | None] = None
    """A built-in text, or a file."""
    size: int | None = None
    """Take this many characters only, from the start."""
    json: bool = False
    """Print the result as JSON."""


def main(argv: list[str]) -> int:
    """Do one of them."""
    if argv[:1] == ["verify"]:
        from tiny_transformer.cli.data_tokenize import verify

        return verify(argv[1:])
    if argv and argv[0] in _MODULES:
        return int(importlib.import_module(_MODULES[argv[0]]).main(argv[1:]))
    settings = parse(DataSettings, argv, command="data", description=DESCRIPTION)
    if settings.action not in ACTIONS:
        raise ConfigError(unknown("action", settings.action, list(ACTIONS)))
    if settings.action == "list":
        check(settings.name is None, f"list {settings.name}", "the list has all of them", f"Try: tiny data show {settings.name}")
        return _list(settings)
    check(settings.name is not None, f"{settings.action} without a name", "it needs one", f"Try: tiny data {settings.action} pitches")
    return _show(settings) if settings.action == "show" else _download(settings)


def _list(settings: DataSettings) -> int:
    found = corpora.describe()
    if settings.json:
        print(json.dumps([asdict(info) for info in found]))
        return 0
    screen = Screen()
    for info in found:
        screen.say(f"{info.name:16} {info.summary}", style="bold")
        screen.say(f"{'':16} {info.how}{'' if info.offline else ' (needs a network)'}", style="dim")
    return 0


def _show(settings: DataSettings) -> int:
    with downloading(Screen(to_stderr=True), settings.name or "") as progress:
        corpus = corpora.load(settings.name or "", size=settings.size, progress=progress)
    counts = Counter(corpus.text)
    facts = {
        "name": corpus.name, "source": corpus.source, "characters": len(corpus.text), "bytes": len(corpus.text.encode("utf-8")),
        "lines": corpus.text.count("\n"), "different": len(counts), "alphabet": "".join(sorted(counts)), "entropy": corpus.entropy,
    }  # fmt: skip
    if settings.json:
        print(json.dumps(facts))
        return 0
    screen = Screen()
    screen.say(f"source      {corpus.source}")
    screen.say(f"size        {facts['characters']:,} characters, {facts['bytes']:,} bytes, {facts['lines']:,} lines")
    screen.say(f"characters  {len(counts)} different: {''.join(sorted(counts))[:200]!r}")
    screen.say("often       " + ", ".join(f"{c!r} {n / len(corpus.text):.1%}" for c, n in counts.most_common(8)))
    if corpus.entropy is not None:
        screen.say(f"entropy     {corpus.entropy:.4f} nats per character: the source is known exactly, and no honest loss stays below it")
    screen.heading("it begins")
    screen.say(visible(clip(corpus.text[:1200], 16)))
    return 0


def _download(settings: DataSettings) -> int:
    with downloading(Screen(to_stderr=True), settings.name or "") as progress:
        corpus = corpora.load(settings.name or "", progress=progress)
    print(json.dumps({"name": corpus.name, "source": corpus.source}) if settings.json else corpus.source)
    return 0
