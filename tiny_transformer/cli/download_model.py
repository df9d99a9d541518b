"""`tiny download`: fetch a published model, verified. Read before: pretrained/published.py."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from tiny_transformer.cli.screen import Screen, downloading, table
from tiny_transformer.cli.settings import parse

DESCRIPTION = """\
Fetch a published model into the cache, or into a folder: every file with its SHA-256
checked, from the first mirror that works, continued where it broke off.

  tiny download                 which there are
  tiny download gpt2
  tiny import gpt2 checkpoints/gpt2

Any other model: get its Hugging Face directory yourself, and `tiny import` it.
"""


@dataclass(frozen=True, kw_only=True)
class DownloadSettings:
    """What `tiny download` accepts."""

    name: tyro.conf.Positional[str | None] = None
    """A model; without one they are listed."""
    out: str | None = None
    """The folder to put it in; default: the cache."""


def main(argv: list[str]) -> int:
    """List, or fetch."""
    settings = parse(DownloadSettings, argv, command="download", description=DESCRIPTION)
    from tiny_transformer.pretrained import published

    screen = Screen()
    if settings.name is None:
        made = table("model", "what", "size", "here")
        for name, model in published.PUBLISHED.items():
            made.add_row(name, model.title, f"{model.size / 1e6:,.0f} MB", str(published.find(name) or "–"))
        screen.say(made)
        return 0
    with downloading(Screen(to_stderr=True), settings.name) as progress:
        folder = published.download(settings.name, None if settings.out is None else Path(settings.out), progress=progress)
    screen.say(f"{settings.name} is in {folder}, every file with the published SHA-256")
    screen.say(f"Next: tiny import {settings.name if settings.out is None else folder} checkpoints/{settings.name}")
    return 0
