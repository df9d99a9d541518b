"""From runs on disk to the numbers that plots.py draws. Read before: run.py, plots.py."""

from collections.abc import Mapping
from typing import Any

from tiny_transformer.cli.plots import Curve, from_metrics
from tiny_transformer.run import Run


def curve_of(run: Run) -> Curve:
    """A run's losses between the landmarks of its text."""
    return from_metrics(title(run), run.metrics(), reference_lines(run.record))


def title(run: Run) -> str:
    """A run in a few words: its text and size."""
    corpus = run.record.get("corpus", {}).get("name", run.path.name)
    parameters = run.record.get("parameters")
    return f"{corpus}, {parameters / 1e6:.2f} M parameters" if parameters else str(corpus)


def reference_lines(record: Mapping[str, Any]) -> dict[str, float]:
    """Label → loss of the landmarks that were written down when the run began."""
    marks = record.get("landmarks")
    if not marks:
        return {}
    lines = {
        f"blind guess, ln {marks['vocab_size']}": marks["guess"],
        "knowing how often each occurs": marks["one"],
        "knowing the one before": marks["pair"],
        "the source itself": marks["floor"],
    }
    return {label: loss for label, loss in lines.items() if loss is not None}


def caption(run: Run) -> str:
    """Architecture and time, as far as they are known."""
    model, metrics = run.record.get("model", {}), run.metrics()
    parts = [f"{model['n_layers']} layers × {model['d_model']}, context {model['max_seq_len']}"] if model else []
    final = next((line["final_val_loss"] for line in reversed(metrics) if line.get("final_val_loss") is not None), None)
    parts += [] if final is None else [f"whole validation text {final:.3f}"]
    return "  ·  ".join(parts)


def samples_of(run: Run) -> list[tuple[int, str]]:
    """(step, text) of every sample under samples/, in order of their steps."""
    files = [file for file in (run.path / "samples").glob("*.txt") if file.stem.isdigit()]
    return sorted((int(file.stem), file.read_text(encoding="utf-8").removesuffix("\n")) for file in files)


