"""Beam search: keep the best few beginnings at every step, and return the best whole text.

It looks for a likely text, not a typical one, and draws nothing: temperature, filters, penalty and seed play no part here.
Left out: single-path decoding (`generator.py`). Read before: `decoder.py`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling.decoder import Decoder
from tiny_transformer.sampling.strategies import top_k


class Hypothesis(NamedTuple):
    """A possible continuation."""

    tokens: tuple[int, ...] = ()
    """The new tokens; where it has ended, the one that ended it is the last."""
    log_probability: float = 0.0
    """The sum over its tokens, in nats."""
    ended: bool = False
    """Whether an end was reached, before the most tokens were."""
    row: int = 0
    """Its row in the batch that is being decoded."""

    def score(self, length_penalty: float) -> float:
        """log-probability / length ** length_penalty: 0 sums, 1 averages, above 1 favours long texts (Wu et al. 2016, section 7)."""
        return float(self.log_probability / max(1, len(self.tokens)) ** length_penalty)


def never(tokens: Sequence[int]) -> bool:
    """No text ends before its last possible token."""
    return False


def beam_search(
    model: TinyTransformerLM,
    prompt: Sequence[int],
    *,
    beams: int,
    max_tokens: int,
    length_penalty: float = 1.0,
    is_end: Callable[[Sequence[int]], bool] = never,
    vocab_size: int | None = None,
) -> list[Hypothesis]:
    """The best continuations of `prompt` that were found, best first: at most `beams`, each ended or max_tokens long.

    At every step the beam holds the `beams` best hypotheses by score, ended ones among them; only the others grow. One beam is
    greedy decoding, and with at least vocab ** max_tokens beams nothing is ever dropped: the search is exhaustive.
    `is_end(tokens)` says whether the new tokens, the last one just added, are a finished text. `vocab_size` leaves out the
    model's tokens from there on. At ties the hypothesis found first and the lower id come first.

    Keys and values are cached; the cache's rows follow the beams. Past the context's edge the rule of `decoder.py` holds.
    """
    decoder = Decoder(model, [prompt] * beams, max_tokens)
    live, ended = [Hypothesis()], list[Hypothesis]()
    best: Hypothesis | None = None  # the best ended one, also when it has fallen out of the beam
    for step in range(max_tokens):
        if step:
            _grow(decoder, live, beams)
        longer = _extend(live, decoder.logits()[: len(live), :vocab_size], beams, is_end)
        kept = sorted(ended + longer, key=lambda h: -h.score(length_penalty))[:beams]  # a stable sort
        live, ended = [h for h in kept if not h.ended], [h for h in kept if h.ended]
        if ended and (best is None or ended[0].score(length_penalty) > best.score(length_penalty)):
            best = ended[0]
        if not live:
            break
    found = live + ended
    if best is not None and best not in found:
        found.append(best)
    return sorted(found, key=lambda h: -h.score(length_penalty))[:beams]


def _extend(live: Sequence[Hypothesis], logits: Tensor, beams: int, is_end: Callable[[Sequence[int]], bool]) -> list[Hypothesis]:
    """The `beams` likeliest one-token extensions of all live hypotheses, likeliest first. logits: (live, vocab)."""
    totals = torch.log_softmax(logits.cpu().double(), -1) + torch.tensor([[h.log_probability] for h in live], dtype=torch.float64)
    likeliest = top_k(totals.flatten(), beams)  # (live · vocab), the others -inf
    places = torch.isfinite(likeliest).nonzero()[:, 0]  # in ascending order, so that a stable sort settles ties
    places = places[likeliest[places].argsort(descending=True, stable=True)]
    longer = []
    for place, total in zip(places.tolist(), likeliest[places].tolist(), strict=True):
        row, token = divmod(place, totals.size(-1))
        tokens = (*live[row].tokens, token)
        longer.append(Hypothesis(tokens, total, is_end(tokens), row))
    return longer


def _grow(decoder: Decoder, live: Sequence[Hypothesis], beams: int) -> None:
    """Let row i of the batch be hypothesis i; rows without one repeat the first and are not looked at."""
    padded = [*live, *[live[0]] * (beams - len(live))]
    rows = [h.row for h in padded]
    if rows != list(range(beams)):
        decoder.select(torch.tensor(rows, device=decoder.tokens.device))
    decoder.append(torch.tensor([h.tokens[-1] for h in padded], device=decoder.tokens.device))


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig

    model = TinyTransformerLM(ModelConfig(vocab_size=5, max_seq_len=16, d_model=32, n_layers=2, n_heads=2), seed=0)
    with torch.no_grad():
        model.embeddings.token.weight.mul_(10)  # an untrained model finds everything equally likely: give it opinions
    for beams in (1, 4, 5**4):
        best = beam_search(model, [0, 1], beams=beams, max_tokens=4)[0]
        print(f"{beams:3} beams: {best.tokens} log-probability {best.log_probability:.4f}")
