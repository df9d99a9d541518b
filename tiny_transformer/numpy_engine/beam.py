"""Beam search: keep the best few beginnings at every step, and return the best whole text. Mirrors `sampling/beam.py`.

It looks for a likely text, not a typical one, and draws nothing: temperature, filters, penalty and seed play no part here.
Left out: single-path decoding (`generator.py`). Read before: `decoder.py`, `beam_hypotheses.py`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tiny_transformer.beam_hypotheses import Beam, Hypothesis, never
from tiny_transformer.numpy_engine.decoder import Decoder
from tiny_transformer.numpy_engine.model import TinyTransformerLM


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

    Keys and values are cached; the cache's rows follow the beams. Past the context's edge the rule of `context_window.py` holds.
    """
    decoder = Decoder(model, [prompt] * beams, max_tokens)
    beam = Beam(beams, length_penalty, is_end)
    for step in range(max_tokens):
        if step:
            _grow(decoder, beam)
        logits = decoder.logits()[: len(beam.live), :vocab_size]
        beam.extend(logits.astype(np.float64))
        if not beam.live:
            break
    return beam.found()


def _grow(decoder: Decoder, beam: Beam) -> None:
    """Let row i of the batch be hypothesis i; rows without one repeat the first and are not looked at."""
    rows = beam.rows()
    if rows != list(range(len(rows))):
        decoder.select(np.array(rows))
    decoder.append(np.array(beam.last_tokens()))


if __name__ == "__main__":
    from tiny_transformer.config import ModelConfig
    from tiny_transformer.numpy_engine.model import init_weights

    config = ModelConfig(vocab_size=5, max_seq_len=16, d_model=32, n_layers=2, n_heads=2)
    weights = init_weights(config, seed=0)
    weights["embeddings.token.weight"] *= 10  # an untrained model finds everything equally likely: give it opinions
    model = TinyTransformerLM(config, weights)
    for beams in (1, 4, 5**4):
        best = beam_search(model, [0, 1], beams=beams, max_tokens=4)[0]
        print(f"{beams:3} beams: {best.tokens} log-probability {best.log_probability:.4f}")
