"""`tiny quantize`: a run, or other people's weights, in 8 or 4 bits, and what that costs. Read before: quantized_layers.py, writing.py."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tiny_transformer.cli.screen import Screen, table
from tiny_transformer.cli.settings import parse
from tiny_transformer.cli.tokenizer_source import spread
from tiny_transformer.config import check
from tiny_transformer.rounded_weights import Rounding

if TYPE_CHECKING:
    from tiny_transformer.cli.quantization_steps import Done, Losses

DESCRIPTION = """\
Round the weights of a model's linear layers to 8 or 4 bits (NF4), into a new run that every
command opens and that stays so small in memory. Embeddings, output layer, norms and biases
are left as they are. MODEL is a run, a checkpoint or a Hugging Face directory, which is
rounded tensor by tensor while it is read; OUT is the folder to make.

  tiny quantize checkpoints/demo checkpoints/demo-4bit
  tiny quantize checkpoints/demo checkpoints/demo-8bit --bits 8
  tiny quantize gpt2 checkpoints/gpt2-4bit --double --text my.txt
"""


@dataclass(frozen=True, kw_only=True)
class QuantizeSettings:
    """What `tiny quantize` accepts."""

    model: tyro.conf.Positional[str | None] = None
    """A run, a checkpoint file, a Hugging Face directory, or the name of a downloaded model."""
    out: tyro.conf.Positional[str | None] = None
    """The run to make; nothing may be there yet."""
    bits: int = 4
    """4 (NF4) or 8 (whole numbers)."""
    block: int | None = None
    """Columns that share a scale, at most: 64 in 4 bits, a whole row in 8 bits unless said otherwise."""
    double: bool = False
    """Round the scales of 4 bits too: 4.13 bits a weight instead of 4.5."""
    keep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Leave these layers as they are, by public name: "*.down.weight", "blocks.0.*"; may be given more than once."""
    text: str | None = None
    """Measure the loss on this text, a file or a built-in corpus; otherwise on the run's own validation text, where it can be had."""
    tokens: int = 100_000
    """Measure on that many tokens at most, from the beginning of the text."""
    json: bool = False
    """Print everything as JSON."""


def main(argv: list[str]) -> int:
    """Check, round, measure, write, show."""
    settings = parse(QuantizeSettings, spread(argv, "--keep"), command="quantize", description=DESCRIPTION)
    remedy = "Try: tiny quantize checkpoints/demo checkpoints/demo-4bit"
    check(settings.model is not None, "no model named", "a run, a checkpoint or a directory is needed", remedy)
    check(settings.out is not None, "no place named", "a folder for the run is needed", remedy)
    rounding = Rounding(bits=settings.bits, block=settings.block, double=settings.double, keep=settings.keep)
    check(settings.tokens >= 1, f"tokens={settings.tokens}", "it must be at least 1", "Try --tokens 100000")
    target = Path(str(settings.out))
    free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    check(free, f"{target} is there already", "nothing is written over", "Name a new folder")
    from tiny_transformer.cli.quantization_steps import quantize  # torch: two seconds that bad flags need not wait for

    done = quantize(str(settings.model), target, rounding, settings.text, settings.tokens)
    if settings.json:
        print(json.dumps(as_json(done)))
    else:
        _show(Screen(), done)
    return 0


def as_json(done: "Done") -> dict[str, Any]:
    """Everything for programs."""
    layers = [{**kind._asdict(), "bits": kind.bits} for kind in (*done.errors.kinds(), done.errors.all())]
    return {
        "run": str(done.path), "rounding": done.rounding.to_dict(), "file_bytes": list(done.file_bytes),
        "memory_bytes": list(done.memory_bytes), "layers": layers, "left_alone_bytes": done.left_alone,
        "loss": None if done.loss is None else {"text": done.loss.text, **_losses(done.loss)}, "note": done.note,
    }  # fmt: skip


def _losses(loss: "Losses") -> dict[str, Any]:
    return {name: getattr(loss, name)._asdict() for name in ("before", "after", "difference")}


def _show(screen: Screen, done: "Done") -> None:
    made = table("linear layer", "matrices", "weights", "bits each", "relative error", "largest error")
    for kind in (*done.errors.kinds(), done.errors.all()):
        made.add_row(
            kind.kind, f"{kind.matrices:,}", f"{kind.weights:,}", f"{kind.bits:.2f}", f"{kind.relative:.2%}", f"{kind.largest:.2g}",
            style="bold" if kind.kind == "all" else "",
        )  # fmt: skip
    screen.say(made)
    screen.say(f"rounding   {done.rounding}")
    screen.say(f"file       {_sizes(done.file_bytes)}")
    screen.say(f"memory     {_sizes(done.memory_bytes)}; {done.left_alone / 1e6:,.2f} MB of it are not rounded")
    if done.loss is not None:
        before, after, worse = done.loss.before, done.loss.after, done.loss.difference
        screen.say(f"loss       {before} → {after} nats a token, on {before.tokens:,} tokens of {done.loss.text}")
        screen.say(f"           the difference, window by window: {worse.loss:+.4f} ± {worse.error:.4f}")
    if done.note is not None:
        screen.say(f"note       {done.note}")
    screen.say(f"Next: {'tiny generate' if done.writes else 'tiny inspect'} {done.path}")


def _sizes(sizes: tuple[int, int]) -> str:
    before, after = sizes
    return f"{before / 1e6:,.2f} MB → {after / 1e6:,.2f} MB ({after / before:.1%})"
