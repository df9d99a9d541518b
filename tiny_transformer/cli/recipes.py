"""`tiny recipes`: the named experiments. Read before: recipes.py of the package."""

import json
from dataclasses import asdict, dataclass

from tiny_transformer.cli.screen import Screen, table
from tiny_transformer.cli.settings import parse
from tiny_transformer.recipes import RECIPES

DESCRIPTION = "List the named experiments: tiny train --recipe NAME runs one, and every flag beside it changes that one setting."


@dataclass(frozen=True, kw_only=True)
class RecipesSettings:
    """What `tiny recipes` accepts."""

    json: bool = False
    """Print every setting of every recipe as JSON."""


def main(argv: list[str]) -> int:
    """Show them."""
    settings = parse(RecipesSettings, argv, command="recipes", description=DESCRIPTION)
    if settings.json:
        print(json.dumps({name: asdict(recipe) for name, recipe in RECIPES.items()}))
        return 0
    made = table("recipe", "model", "training", "writes to")
    for recipe in RECIPES.values():
        model, training = recipe.model, recipe.training
        size = f"{model.n_layers} × {model.d_model}, context {model.max_seq_len}"
        made.add_row(recipe.name, size, f"{training.max_steps:,} × {training.batch_size}", recipe.out)
    screen = Screen()
    screen.say(made)
    for recipe in RECIPES.values():
        screen.say(f"  {recipe.name:12} {recipe.summary}")
    return 0
