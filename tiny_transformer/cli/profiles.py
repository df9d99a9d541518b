"""`tiny profile`: where a step's time goes, or a token's, by part of the model.

Read before: profile_settings.py, profile_measures.py, profile_views.py.
"""

import json
from pathlib import Path

from tiny_transformer.cli.profile_settings import decide
from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.texts import save_text


def main(argv: list[str]) -> int:
    """Decide, measure, show."""
    settings, subject = decide(argv)
    screen = Screen(to_stderr=settings.json == "-")
    from tiny_transformer.cli import profile_views as views  # torch: two seconds that bad flags need not wait for
    from tiny_transformer.cli.profile_measures import measure

    report = measure(subject, settings)
    views.show(report, screen)
    if settings.output is not None:
        views.draw(report, Path(settings.output))
        screen.say(f"drawn: {settings.output}")
    if settings.json == "-":
        print(json.dumps(views.as_dict(report)))
    elif settings.json is not None:
        save_text(settings.json, json.dumps(views.as_dict(report), indent=2) + "\n")
        screen.say(f"written: {settings.json}")
    return 0
