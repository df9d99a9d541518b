"""Speculative decoding against the same model's plain cached generation: guesses of a small model, and of counts of the text.

How much it gives depends on how often the guesses are right, and models with random weights agree about nothing. So both are trained
here first, for seconds: enough for spelling and names, far from what the large one could learn. What it learns beyond its draft, the
draft gets wrong: for better models expect lower rates than these.
"""

import math
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Result, compare, seconds
from tiny_transformer import corpora
from tiny_transformer.config import ModelConfig, SampleConfig, TrainConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling.acceptance import expected_speedup
from tiny_transformer.sampling.generator import TextGenerator
from tiny_transformer.sampling.ngram_draft import NgramDraft
from tiny_transformer.sampling.rewinding import RewindingReader
from tiny_transformer.sampling.speculative import Draft, SpeculativeGenerator
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training.dataset import split
from tiny_transformer.training.objectives import cross_entropy
from tiny_transformer.training.optimizers import make_optimizer
from tiny_transformer.training.utils import clip_gradients

LARGE = ModelConfig(
    max_seq_len=256, d_model=384, n_layers=6, n_heads=6, position="rotary", norm="rms", activation="relu2", qk_norm=True, bias="none"
)
SMALL = replace(LARGE, d_model=128, n_layers=1, n_heads=2)
LARGE_SECONDS, SMALL_SECONDS = 26.0, 6.0
SETTINGS = TrainConfig(learning_rate=3e-3, optimizer="muon", muon_learning_rate=0.02, weight_decay=0.0)
BATCH, LENGTH = 8, 128
NEW, GUESSES = 200, 4
WRITING = SampleConfig(temperature=0.8, top_k=40, max_tokens=NEW, seed=0)


def text_to_learn() -> str:
    """Tiny Shakespeare where it is on this machine, else English that every machine has."""
    here = {info.name for info in corpora.describe() if info.offline}
    return corpora.load("shakespeare" if "shakespeare" in here else "pydoc").text


def trained(config: ModelConfig, ids: NDArray[np.int32], budget: float) -> TinyTransformerLM:
    """A model after `budget` seconds of training on random windows; the learning rate falls to zero over the last half."""
    model = TinyTransformerLM(config, seed=0)
    optimizer = make_optimizer(model, SETTINGS)
    rates = [group["lr"] for group in optimizer.param_groups]
    random, begun = np.random.default_rng(0), time.perf_counter()
    while (share := (time.perf_counter() - begun) / budget) < 1:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, 2 * (1 - share))
        batch = windows(ids, random.integers(len(ids) - LENGTH, size=BATCH))
        loss = cross_entropy(model(batch[:, :-1]), batch[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def windows(ids: NDArray[np.int32], starts: NDArray[np.int64]) -> torch.Tensor:
    """(len(starts), LENGTH + 1) ids."""
    return torch.from_numpy(np.stack([ids[start : start + LENGTH + 1] for start in starts])).long()


def loss_of(model: TinyTransformerLM, ids: NDArray[np.int32]) -> float:
    """Nats per character on 32 windows that are spread over the text held back."""
    batch = windows(ids, np.linspace(0, len(ids) - LENGTH - 1, 32).astype(np.int64))
    with torch.inference_mode():
        return float(cross_entropy(model(batch[:, :-1]), batch[:, 1:]))


def loss_of_counts(draft: NgramDraft, ids: NDArray[np.int32]) -> float:
    """The same for counts, on 500 characters, each behind 64."""
    places = np.linspace(64, len(ids) - 1, 500).astype(np.int64)
    return -float(np.mean([math.log(draft.probabilities(ids[i - 64 : i].tolist())[ids[i]]) for i in places]))


def measure(name: str, model: TinyTransformerLM, tokenizer: CharTokenizer, draft: TinyTransformerLM | Draft, notes: str) -> Result:
    """Texts of 200 tokens with one draft, another seed each round, against the plain generator."""
    plain, speculative = TextGenerator(model, tokenizer), SpeculativeGenerator(model, tokenizer, draft, GUESSES)
    prompts = [tokenizer.encode("\n")]
    seeds = iter(range(10_000))
    result = compare(
        f"speculative, 6 × 384, draft {name}", lambda: speculative.generate_ids(prompts, replace(WRITING, seed=next(seeds))),
        lambda: plain.generate_ids(prompts, WRITING), work=NEW, unit="tokens/s", peer_name="plain", rounds=7, warm_up=1, notes=notes,
    )  # fmt: skip
    tally, cost = speculative.tally, cost_of(model, draft)
    promised = expected_speedup(tally.rate, GUESSES, cost)
    print(f"{result.line()}\n    {tally}; a guess costs {cost:.3f} of a pass, which promises {promised:.2f}; {notes}", flush=True)
    return replace(result, extra={"rate": tally.rate, "tokens_per_pass": tally.tokens_per_pass, "cost": cost, "promised": promised})


def cost_of(model: TinyTransformerLM, draft: TinyTransformerLM | Draft) -> float:
    """The time of a guess over that of a pass of the model over one token (medians, behind 100 tokens)."""
    ids = list(range(40)) * 3

    def time_of(reader: Draft) -> float:
        return float(np.median([seconds(partial(reader.logits, ids[: 100 + i])) for i in range(20)]))

    guesser = RewindingReader(draft) if isinstance(draft, TinyTransformerLM) else draft
    return time_of(guesser) / time_of(RewindingReader(model, at_once=1, max_new=NEW))


def run(budgets: tuple[float, float] = (LARGE_SECONDS, SMALL_SECONDS)) -> list[Result]:
    """Train both, then measure; no aim: the ratio is what it is."""
    learned, held_back = split(text_to_learn(), 0.1)
    tokenizer = CharTokenizer.train(learned + held_back)
    ids, others = tokenizer.encode_array(learned), tokenizer.encode_array(held_back)
    sizes = [replace(config, vocab_size=tokenizer.vocab_size) for config in (LARGE, SMALL)]
    model, small = (trained(config, ids, budget) for config, budget in zip(sizes, budgets, strict=True))
    counts = NgramDraft(tokenizer.vocab_size, ids)
    loss, small_loss, count_loss = loss_of(model, others), loss_of(small, others), loss_of_counts(counts, others)
    return [
        measure("1 × 128", model, tokenizer, small, f"validation losses {loss:.2f} and {small_loss:.2f}"),
        measure("n-grams", model, tokenizer, counts, f"validation losses {loss:.2f} and {count_loss:.2f}"),
    ]


if __name__ == "__main__":
    run()
