"""Make the model that comes with the package: a run's best weights in eight bits, with a card that says what it is.

    tiny train --recipe speedrun
    python tools/make_pocket.py checkpoints/speedrun                 writes tiny_transformer/pocket/
    python tools/make_pocket.py checkpoints/speedrun some/folder     writes there

Every matrix is rounded to whole numbers with one scale per row (`tiny_transformer/quantized.py`), vectors stay as they are. The card
holds settings, seed, losses before and after rounding, and the commands. Read before: `tiny_transformer/run.py`.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    from tiny_transformer import corpora, run
except ModuleNotFoundError:
    sys.exit("tools/make_pocket.py: the package is not installed. Run: pip install -e .")

from tiny_transformer.evaluation.validation_loss import Measured, loss_in_random_windows, loss_in_windows
from tiny_transformer.numpy_engine import checkpoint as checkpoints
from tiny_transformer.quantized import quantize
from tiny_transformer.training.dataset import split
from tiny_transformer.utils.checkpoint import Checkpoint

MOST_BYTES = 3_000_000
PLACE = "checkpoints/pocket"
"""Where the card's commands put the run."""


def rounded(checkpoint: Checkpoint, note: dict[str, Any]) -> checkpoints.Checkpoint:
    """The checkpoint with its matrices in eight bits."""
    weights = {name: weight.float().numpy() for name, weight in checkpoint.weights.items() if weight.dim() != 2}
    small = {name: quantize(weight).stored() for name, weight in checkpoint.weights.items() if weight.dim() == 2}
    return checkpoints.Checkpoint(
        checkpoint.config, checkpoint.tokenizer, weights, checkpoint.step, checkpoint.metrics, note, rounded=small
    )


def losses(path: Path, data: dict[str, Any]) -> tuple[Measured, Measured]:
    """The loss of the model at `path` on the validation text: the whole of it in windows, and nanoGPT's manner."""
    model, tokenizer = run.load(path)
    if tokenizer is None:
        raise ValueError(f"{path} holds no tokenizer: the validation text can't be read. Take a run of tiny train")
    text = split(corpora.load(data["corpus"] or data["data"], size=data["size"]).text, data["val_share"])[1]
    ids = np.array(tokenizer.encode(text))
    return loss_in_windows(model, ids), loss_in_random_windows(model, ids)


def card(
    record: dict[str, Any], seconds: float | None, before: tuple[Measured, Measured], after: tuple[Measured, Measured]
) -> str:
    """What the model is, in Markdown, and the commands that make it again, wherever the run itself lay."""
    training, model, made = record["training"], record["model"], record["environment"]
    settings = "\n".join(f"| {name} | {value} |" for name, value in {**model, **training}.items())
    spent = "" if seconds is None else f" in {seconds:.0f} seconds, from the start of the command to the last training step"
    return f"""# The pocket model

A model of the text `{record["corpus"]["name"]}` with {record["parameters"] / 1e6:.2f} million parameters, trained{spent}.
The machine: {made["hardware"]}; {made["started"][:10]}; seed {training["seed"]}.
It writes what looks like that text and means nothing; it knows no other text and answers no questions.

    tiny generate pocket --prompt "ROMEO:"
    tiny chat pocket

Loss in nats per token on the last {record["data"]["val_share"]:.0%} of the text, which it has not seen, with standard errors:

| weights | the whole of it, in windows of {model["max_seq_len"]} without overlap | 200 batches of random windows |
|---|---|---|
| as trained | {before[0]} | {before[1]} |
| here, in 8 bits | {after[0]} | {after[1]} |

A run that is picked among several for its loss looks better than the next one will be: docs/benchmarks.md has recipes over several
seeds. Made again by:

    {shlex.join(["tiny", *without_place(made["command"][1:]), "--out", PLACE])}
    python tools/make_pocket.py {PLACE}

| setting | value |
|---|---|
{settings}
"""


def without_place(command: list[str]) -> list[str]:
    """The command's words without --out and its folder."""
    place = command.index("--out") if "--out" in command else len(command)
    return command[:place] + command[place + 2 :]


def main(source: str, target: str | None = None) -> None:
    """Round, measure before and after, write."""
    folder = run.POCKET if target is None else Path(target)
    file = run.resolve(source)
    found = run.Run.open(file.parent)
    checkpoint = run.read(file)
    folder.mkdir(parents=True, exist_ok=True)
    made, new = folder / "best.safetensors", folder / "new.safetensors"
    checkpoints.save(new, rounded(checkpoint, {**checkpoint.lineage, "rounded": "8 bits, one scale per row"}))
    if (size := new.stat().st_size) > MOST_BYTES:
        new.unlink()
        raise ValueError(f"{file} has {size:,} bytes in 8 bits: the package takes at most {MOST_BYTES:,}. Take a smaller model")
    seconds = next((line["trained_seconds"] for line in reversed(found.metrics()) if "trained_seconds" in line), None)
    data = found.record["data"]
    before, after = losses(file, data), losses(new, data)
    new.replace(made)
    (folder / "CARD.md").write_text(card(found.record, seconds, before, after), encoding="utf-8")
    print(f"{made}: {size:,} bytes, loss {before[0]} as trained, {after[0]} in 8 bits")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        print("usage: python tools/make_pocket.py RUN [FOLDER]", file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
