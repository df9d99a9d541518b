"""Draw the two figures of docs/backpropagation.md: the computation graph, and a numerical slope's error against its step.

    python tools/draw_backpropagation.py             writes docs/images/backpropagation.svg and docs/images/gradient_check.svg
    python tools/draw_backpropagation.py some/dir    writes them there

The SVG is written directly, as text: the same bytes for the same numbers, and colours that follow the reader's light or dark
mode, on a ground of their own. Read before: docs/backpropagation.md.
"""

import re
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np

try:
    from tiny_transformer.numpy_engine.feedforward import gelu_tanh, gelu_tanh_backward
except ModuleNotFoundError:
    sys.exit("tools/draw_backpropagation.py: the package is not installed. Run: pip install -e .")

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

LIGHT = {
    "paper": "#ffffff", "ink": "#22223b", "soft": "#5b6078", "box": "#f1f2f7", "edge": "#8a8fa3", "grid": "#d9dbe3",
    "back": "#b83c08", "kept": "#1f6390",
}  # fmt: skip
DARK = {
    "paper": "#161b22", "ink": "#e8e8f2", "soft": "#a9b0c2", "box": "#232a36", "edge": "#6b7489", "grid": "#333b49",
    "back": "#ff8f61", "kept": "#7cc0e8",
}  # fmt: skip
FORMS = """
text { font: 13px Verdana, "DejaVu Sans", sans-serif; } .name { font-weight: bold; } .small { font-size: 12px; }
.there, .again, .thin { fill: none; stroke-width: 1.6; } .grid, .frame { fill: none; } .node { stroke-width: 1.6; }
.again { stroke-dasharray: 5 3; } .frame { stroke-dasharray: 2 4; }
"""
COLOURS = """
text, .head { fill: {ink}; } .soft { fill: {soft}; } .back, .backhead { fill: {back}; } .kept { fill: {kept}; }
.paper { fill: {paper}; } .box { fill: {box}; stroke: {edge}; } .frame { stroke: {edge}; } .node { fill: {paper}; stroke: {ink}; }
.there { stroke: {ink}; } .again { stroke: {back}; } .thin { stroke: {kept}; } .grid { stroke: {grid}; }
"""


def style() -> str:
    """The figures' CSS: light colours, and dark ones for readers whose system is dark."""

    def painted(palette: dict[str, str]) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: palette[found[1]], COLOURS)

    return f"{FORMS}{painted(LIGHT)}@media (prefers-color-scheme: dark) {{{painted(DARK)}}}"


class Drawing:
    """An SVG under construction: shapes in the order of drawing."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title, self.parts = (width, height), title, [f'<rect class="paper" width="{width}" height="{height}" rx="8"/>']

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """Words with their baseline at y."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, left: float, right: float, y: float, name: str, formula: str = "", height: float = 42) -> None:
        """A rounded box around the height y, with a bold name and a formula under it."""
        self.parts.append(f'<rect class="box" x="{left:g}" y="{y - height / 2:g}" width="{right - left:g}" height="{height:g}" rx="6"/>')
        middle = (left + right) / 2
        self.text(middle, y - 3 if formula else y + 5, name, "name", "middle")
        if formula:
            self.text(middle, y + 15, formula, "small", "middle")

    def line(self, kind: str, *points: tuple[float, float]) -> None:
        """Straight lines through the points."""
        self.parts.append(f'<path class="{kind}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>')

    def arrow(self, kind: str, *points: tuple[float, float]) -> None:
        """The same, with a head at the last point; `kind` is "there" (forward) or "again" (backward)."""
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        u, v = (x1 - x0) / length, (y1 - y0) / length  # along; lines are upright or level
        self.line(kind, *points[:-1], (x1 - 6 * u, y1 - 6 * v))
        corners = ((x1, y1), (x1 - 8 * u - 4 * v, y1 - 8 * v + 4 * u), (x1 - 8 * u + 4 * v, y1 - 8 * v - 4 * u))
        head = "head" if kind == "there" else "backhead"
        self.parts.append(f'<path class="{head}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in corners)} Z"/>')

    def both_ways(self, x: float, top: float, bottom: float) -> None:
        """Forward down, backward up, side by side around x."""
        self.arrow("there", (x - 5, top), (x - 5, bottom))
        self.arrow("again", (x + 5, bottom), (x + 5, top))

    def svg(self) -> str:
        """The file's text."""
        width, height = self.size
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        return "\n".join([head, f"<title>{escape(self.title)}</title>", f"<style>{style()}</style>", *self.parts, "</svg>", ""])


# --- the computation graph ------------------------------------------------------------------------------------------

STREAM, LEFT, RIGHT, MIDDLE = 62, 120, 390, 255
HEADS = (160, 255, 350)
"""Where queries, keys and values run; queries and keys share boxes."""
SHARED = (LEFT, 300)
BACK, KEPT = 415, 745
"""Where the columns of formulas begin."""


def graph() -> str:
    """The model forward and backward: one block in full, pre-norm, and the two ends."""
    page = Drawing(985, 1225, "Forward and backward pass of the transformer, and what each part keeps")
    page.text(20, 34, "forward", "name")
    page.text(BACK, 34, "backward: what it does with the dy it gets", "name back")
    page.text(KEPT, 34, "kept for it", "name kept")
    page.line("grid", (20, 46), (965, 46))
    _ends(page)
    _frame(page)
    _attention_branch(page)
    _feed_forward_branch(page)
    return page.svg()


def _row(page: Drawing, y: float, back: Sequence[str], kept: Sequence[str]) -> None:
    """The two columns of formulas beside a box, one or two lines each."""
    for x, lines, kind in ((BACK, back, "back"), (KEPT, kept, "kept")):
        for index, words in enumerate(lines):
            page.text(x, y + 5 + 17 * (index - (len(lines) - 1) / 2), words, f"small {kind}")


def _ends(page: Drawing) -> None:
    page.box(24, RIGHT, 90, "embed", "x = T[ids] + P[positions]")
    _row(page, 90, ("dT[r] = Σ of dx where ids = r", "dP = Σ of dx over the batch"), ("ids",))
    ends = (
        (1052, "norm", "hidden = norm(x)", ("as norm1",), ("z, r",)),
        (1118, "unembed", "logits = hidden Tᵀ", ("dhidden = dlogits T", "dT = dlogitsᵀ hidden: added to embed's"), ("hidden",)),
        (1184, "cross_entropy", "L = log Σ exp(logits) − logits[target]", ("dlogits = (p − [v = target]) / m",), ("logits, log Σ exp",)),
    )
    for y, name, formula, back, kept in ends:
        page.box(24, RIGHT, y, name, formula)
        _row(page, y, back, kept)
    page.text(STREAM + 16, 125, "(B, T, d_model)", "small soft")
    page.text(STREAM + 16, 1156, "(B, T, vocab_size)", "small soft")
    page.both_ways(STREAM, 1073, 1097)
    page.both_ways(STREAM, 1139, 1163)
    page.line("thin", (24, 90), (10, 90), (10, 1118), (24, 1118))  # tied weights
    page.parts.append('<text class="small kept" text-anchor="middle" transform="translate(22 590) rotate(-90)">'
                      "tied: one table T, used twice, so its two gradients are added</text>")  # fmt: skip


def _frame(page: Drawing) -> None:
    page.parts.append('<rect class="frame" x="36" y="130" width="929" height="884" rx="10"/>')
    page.text(955, 150, "one block, × n_layers (pre-norm)", "small soft", "end")


def _fork_and_join(page: Drawing, above: float, fork: float, join: float) -> None:
    """The stream from `above` past one branch: it goes into the branch at `fork`, and the branch is added at `join`."""
    page.both_ways(STREAM, above, fork - 7)
    page.both_ways(STREAM, fork + 7, join - 11)
    page.arrow("there", (STREAM + 5, fork - 5), (LEFT, fork - 5))
    page.arrow("again", (LEFT, fork + 5), (STREAM + 8, fork + 5))
    page.arrow("there", (LEFT, join - 4), (STREAM + 10, join - 4))
    page.arrow("again", (STREAM + 10, join + 5), (LEFT, join + 5))
    page.parts.append(f'<circle class="node" cx="{STREAM}" cy="{fork}" r="7"/><circle class="node" cx="{STREAM}" cy="{join}" r="10"/>')
    page.text(STREAM, join + 5, "+", "name", "middle")
    page.text(STREAM, fork + 4.5, "•", "", "middle")


def _attention_branch(page: Drawing) -> None:
    y = 180
    page.box(LEFT, RIGHT, y, "norm1", "read = (x − μ) r · g + b = z · g + b")
    _row(page, y, ("r (dz − mean(dz) − z · mean(dz · z)),", "and at • the stream's own dx is added"), ("z, r",))
    y = 248
    for x, name in zip(HEADS, ("W_query", "W_key", "W_value"), strict=True):
        page.box(x - 40, x + 40, y, name, f"{name[2].upper()} = read Wᵀ")
        page.both_ways(x, 201, y - 21)
    _row(page, y, ("dread = dQ W + dK W + dV W: used thrice", "dW = dQᵀ read, and so on"), ("read (once for the three)",))
    y = 316
    page.box(*SHARED, y, "QK-norm, rotate", "split heads; turn by position")
    back = "turn by the opposite angle,", "then as norm1; dg: Σ over heads as well"
    _row(page, y, back, ("z, r (with QK-norm)", "cosines, sines (shared)"))
    page.both_ways(HEADS[0], 269, y - 21)
    page.both_ways(HEADS[1], 269, y - 21)
    y = 384
    page.box(*SHARED, y, "scores", "s = Q Kᵀ / √d, masked")
    _row(page, y, ("dQ = ds K / √d", "dK = dsᵀ Q / √d"), ("Q, K, the mask",))
    page.both_ways(HEADS[0], 337, y - 21)
    page.both_ways(HEADS[1], 337, y - 21)
    y = 452
    page.box(*SHARED, y, "softmax", "w = exp(s) / Σ exp(s)")
    _row(page, y, ("ds = w (dw − Σ dw · w)", "0 where the mask hides"), ("log Σ exp(s); w itself is", "made again from it"))
    page.both_ways(210, 405, y - 21)
    page.text(226, 422, "(B, heads, T, T)", "small soft")
    y = 520
    page.box(LEFT, RIGHT, y, "weights times values", "o = w V")
    _row(page, y, ("dw = do Vᵀ", "dV = wᵀ do"), ("V",))
    page.both_ways(210, 473, y - 21)
    page.text(226, 490, "(B, heads, T, T)", "small soft")
    page.both_ways(HEADS[2], 269, y - 21)
    y = 588
    page.box(LEFT, RIGHT, y, "merge_heads, out_proj, dropout", "(o Wᵀ + b) · keep / (1 − rate)")
    _row(page, y, ("dy · keep / (1 − rate), then", "do = dy W, dW = dyᵀ o, db = Σ dy"), ("o merged; keep",))
    page.both_ways(MIDDLE, 541, y - 21)
    page.text(MIDDLE + 16, 558, "(B, heads, T, d_head)", "small soft")
    _fork_and_join(page, 111, 180, 588)


def _feed_forward_branch(page: Drawing) -> None:
    dropped = "dy · keep / (1 − rate), then", "dbent = dy W, dW = dyᵀ bent, db = Σ dy"
    bent = "dup = dbent · f′(up), number by number", "SwiGLU: each factor gets the other"
    rows = (
        (669, "norm2", "read = norm(x)", ("as norm1",), ("z, r",)),
        (742, "up", "read Wᵀ + b", ("dread = dy W", "dW = dyᵀ read, db = Σ dy"), ("read",)),
        (815, "activation", "bent = f(up)", bent, ("what f′ needs:", "ReLU² max(0, up); GELU up, Φ(up)")),
        (888, "down, dropout", "(bent Wᵀ + b) · keep / (1 − rate)", dropped, ("bent; keep",)),
    )
    for y, name, formula, back, kept in rows:
        page.box(LEFT, RIGHT, y, name, formula)
        _row(page, y, back, kept)
        if name != "norm2":
            page.both_ways(MIDDLE, y - 52, y - 21)
            page.text(MIDDLE + 16, y - 33, "(B, T, d_model)" if name == "up" else "(B, T, d_ff)", "small soft")
    page.text(LEFT, 962, "The additions keep nothing: the stream x itself is not kept.", "small soft")
    page.text(LEFT, 982, "Red arrows carry gradients, each of the shape of what the black one beside it carries.", "small soft")
    page.text(LEFT, 1002, "At • one array went two ways: the two gradients are added.", "small soft")
    _fork_and_join(page, 598, 669, 888)
    page.both_ways(STREAM, 898, 1031)


# --- the error of a numerical slope ---------------------------------------------------------------------------------


def slope_error(h: float, kind: Callable[[float], np.floating], sides: int = 2) -> float:
    """Median relative error of the nudged slope of `gelu_tanh`, at 400 places, in float type `kind`."""
    x = np.linspace(0.5, 2.5, 400)
    true = gelu_tanh_backward(np.ones_like(x), gelu_tanh(x)[1])
    x = x.astype(kind)
    above, below = x + kind(h), x - kind(h) if sides == 2 else x
    rise, run = gelu_tanh(above)[0] - gelu_tanh(below)[0], above - below
    return float(np.median(np.abs(rise / run - true) / np.abs(true)))


def curves() -> dict[str, list[tuple[float, float]]]:
    """(step, error) pairs of the three ways to nudge, four steps a decade."""
    ways = {
        "one-sided, float64": (np.float64, 1, -11.0),
        "central, float64": (np.float64, 2, -11.0),
        "central, float32": (np.float32, 2, -5.75),
    }
    return {
        name: [(float(h), slope_error(float(h), kind, sides)) for h in 10.0 ** np.arange(start, -0.74, 0.25)]
        for name, (kind, sides, start) in ways.items()
    }


def step_sizes() -> str:
    """Error against step on logarithmic axes."""
    page = Drawing(760, 420, "Error of a numerical slope against the step size")
    left, right, top, bottom = 80, 735, 50, 360

    def at(h: float, error: float) -> tuple[float, float]:
        return left + (np.log10(h) + 11) / 10.5 * (right - left), top - (np.log10(error) + 1) / 11 * (bottom - top)

    for power in range(-12, 0, 2):
        y = at(1, 10.0**power)[1]
        page.line("grid", (left, y), (right, y))
        page.text(left - 8, y + 4, f"1e{power}", "small soft", "end")
    for power in range(-11, 0, 2):
        page.text(at(10.0**power, 1)[0], bottom + 20, f"1e{power}", "small soft", "middle")
    page.text(left, 30, "relative error of the slope", "name")
    page.text((left + right) / 2, bottom + 45, "step h", "name", "middle")
    looks = {  # line, colour, where the name stands
        "one-sided, float64": ("again", "back", 1e-6, 2e-7, "end"),
        "central, float64": ("there", "", 1.6e-8, 1e-10, "end"),
        "central, float32": ("thin", "kept", 1e-5, 2e-2, "start"),
    }
    for name, pairs in curves().items():
        kind, colour, h, error, anchor = looks[name]
        page.line(kind, *(at(*pair) for pair in pairs))
        page.text(*(round(v, 1) for v in at(h, error)), name, f"name {colour}", anchor)
    return page.svg()


FIGURES: dict[str, Callable[[], str]] = {"backpropagation.svg": graph, "gradient_check.svg": step_sizes}


def main(folder: Path = IMAGES) -> None:
    """Write both figures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        (folder / name).write_text(draw(), encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
