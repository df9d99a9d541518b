"""Cached generation: beside transformers' own, beside the rate at which the weights can be read, and with weights in eight bits.

A model of 10.6 million parameters (6 × 384, context 256) writes 200 tokens behind a prompt of 16, with top-k sampling; each rate is
the median of turns, all in one process, on all cores. A token needs every weight once, so no program can write one text faster than
it can read them. How that is measured: a float32 tensor with as many numbers as the model has parameters is summed by `torch.sum`,
which reads it once with all threads, as fast as the machine gives it (the kernel does one addition per number). 200 sums against 200
tokens, twice: from memory, where each sum takes the next of several such tensors, more than any cache holds; and the same tensor
again and again, of which a large last cache keeps a part, as it keeps a part of the weights while a text is written.

The loss of the rounded weights is that of a model which has learned Tiny Shakespeare (or, where it is not at hand, pitches) for 25
seconds, on 256 windows of the text held back.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.harness import Result, compare
from benchmarks.speculative import LENGTH, SMALL, trained, windows
from benchmarks.training import theirs_config
from tiny_transformer import corpora
from tiny_transformer.config import ModelConfig, SampleConfig
from tiny_transformer.corpora import pitches
from tiny_transformer.kv_cache import KVCache
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.quantized_layers import quantize_model, weight_bytes
from tiny_transformer.sampling import generator
from tiny_transformer.sampling.generator import TextGenerator
from tiny_transformer.sampling.native_step import MOST_ITEMS, Rule, native_step
from tiny_transformer.tokenization.char import CharTokenizer
from tiny_transformer.training.dataset import split
from tiny_transformer.training.objectives import cross_entropy

CONFIG = ModelConfig(vocab_size=65, max_seq_len=256, d_model=384, n_layers=6, n_heads=6, activation="gelu_tanh")
ALPHABET = "".join(chr(33 + i) for i in range(65))
PROMPT, NEW = ALPHABET[:16], 200
AIMS = {1: 1.5, 16: 2.0}
READING_AIM, INT8_AIM = 0.85, 1.6
COPIES = 10
"""Of the weights, together 430 MB: no processor's cache keeps them."""
LEARNER = replace(SMALL, n_layers=3, max_seq_len=LENGTH)
LEARNING_SECONDS, WINDOWS = 25.0, 256
"""What the loss of the rounded weights is measured on: three layers of the speculative benchmark's draft."""
SETTINGS = SampleConfig(temperature=0.8, top_k=40, max_tokens=NEW, seed=0)


def run() -> list[Result]:
    """Top-k sampling of 200 tokens behind a prompt of 16."""
    model = TinyTransformerLM(CONFIG, seed=0).eval()
    mine = TextGenerator(model, CharTokenizer.train(ALPHABET))
    results = []
    reading = [partial(beside_reading, mine, copies) for copies in (COPIES, 1)]
    for comparison in (*reading, partial(beside_float32, mine), *(partial(beside_transformers, mine, batch) for batch in AIMS)):
        results.append(comparison())
        print(results[-1].line(), *(f"{key} {value:.4g}" for key, value in results[-1].extra.items()), flush=True)
    return results


def beside_transformers(mine: TextGenerator, batch: int) -> Result:
    """The same sampling by `transformers`' GPT-2, whose cache grows by copying."""
    peer = transformers.GPT2LMHeadModel(theirs_config(CONFIG, use_cache=True)).eval()
    ids = torch.tensor([mine.tokenizer.encode(PROMPT)])

    def theirs() -> None:
        torch.manual_seed(0)
        with torch.inference_mode():
            out = peer.generate(
                ids.expand(batch, -1), attention_mask=torch.ones(batch, ids.size(1), dtype=torch.long), do_sample=True,
                temperature=0.8, top_k=40, max_new_tokens=NEW, min_new_tokens=NEW, use_cache=True, pad_token_id=0,
            )  # fmt: skip
        if out.shape != (batch, ids.size(1) + NEW):
            raise RuntimeError(f"the peer wrote {tuple(out.shape)}: it stopped early")

    ours = partial(mine.generate_batch, [PROMPT] * batch, SETTINGS)
    result = compare(
        f"generation, 6 × 384, batch {batch}", ours, theirs,
        work=batch * NEW, unit="tokens/s", peer_name="transformers", rounds=8, warm_up=1, aim=AIMS[batch],
    )  # fmt: skip
    return replace(result, extra=sampler_share(ours))


def beside_reading(mine: TextGenerator, copies: int) -> Result:
    """One token against one reading of all weights: from memory, or of one copy, part of which a cache keeps."""
    weights = [torch.randn(CONFIG.n_parameters) for _ in range(copies)]
    name = "generation, 6 × 384, beside reading" + (" from memory" if copies > 1 else "")

    def read() -> None:
        for turn in range(NEW):
            weights[turn % copies].sum()

    with torch.inference_mode():
        result = compare(
            name, partial(mine.generate, PROMPT, SETTINGS), read,
            work=NEW, unit="tokens/s", peer_name="weights read", rounds=12, warm_up=1, aim=READING_AIM,
        )  # fmt: skip
    return replace(result, extra={"gigabytes_per_second": weights[0].nbytes * result.peer / 1e9})


def beside_float32(mine: TextGenerator) -> Result:
    """Weights in eight bits against float32."""
    small = TextGenerator(quantize_model(mine.model), mine.tokenizer)
    ours = partial(small.generate, PROMPT, SETTINGS)
    result = compare(
        "generation, 6 × 384, int8", ours, partial(mine.generate, PROMPT, SETTINGS),
        work=NEW, unit="tokens/s", peer_name="float32", rounds=12, warm_up=1, aim=INT8_AIM,
    )  # fmt: skip
    megabytes = {"megabytes": weight_bytes(small.model) / 1e6, "float32_megabytes": weight_bytes(mine.model) / 1e6}
    return replace(result, extra={**megabytes, **int8_loss(), **sampler_share(ours)})


def sampler_share(write: Callable[[], Any]) -> dict[str, float]:
    """What choosing the token takes of a token's time, in one run of `write`: in the step in C, and where it leaves the choice open."""
    choose, rule_for, spent, rules = generator.pick, generator.draw_rule, 0.0, list[Rule | None]()

    def timed(*arguments: Any) -> torch.Tensor:
        nonlocal spent
        start = time.perf_counter()
        tokens = choose(*arguments)
        spent += time.perf_counter() - start
        return tokens

    def kept(*arguments: Any) -> Rule | None:
        rules.append(rule_for(*arguments))
        return rules[-1]

    generator.pick, generator.draw_rule = timed, kept
    try:
        start = time.perf_counter()
        write()
        whole = time.perf_counter() - start
    finally:
        generator.pick, generator.draw_rule = choose, rule_for
    spent += sum(rule.seconds for rule in rules if rule is not None)
    return {"sampler_share": spent / whole, "sampler_microseconds": spent / NEW * 1e6}


def int8_loss(budget: float = LEARNING_SECONDS) -> dict[str, float]:
    """Train for `budget` seconds; the loss on text held back, and by how much of itself the rounded weights change it.

    All read the same windows, so what chance there is in them is the same for all. As written: by the step in C, where there is one.
    """
    learned, held_back = split(text_to_learn(), 0.1)
    tokenizer = CharTokenizer.train(learned + held_back)
    ids, others = tokenizer.encode_array(learned), tokenizer.encode_array(held_back)
    model = trained(replace(LEARNER, vocab_size=tokenizer.vocab_size), ids, budget)
    batch = windows(others, np.linspace(0, len(others) - LENGTH - 1, WINDOWS).astype(np.int64))
    small = quantize_model(model)
    loss, rounded, written = _loss(model, batch), _loss(small, batch), _loss_as_written(small, batch)
    return {"loss": loss, "loss_change": rounded / loss - 1} | ({} if written is None else {"loss_change_as_written": written / loss - 1})


def text_to_learn() -> str:
    """Tiny Shakespeare where it is on this machine, else pitches."""
    here = {info.name for info in corpora.describe() if info.offline}
    return corpora.load("shakespeare").text if "shakespeare" in here else pitches.text(400_000)


def _loss(model: TinyTransformerLM, batch: torch.Tensor) -> float:
    """Nats per character."""
    with torch.inference_mode():
        parts = [cross_entropy(model(part[:, :-1]), part[:, 1:]) for part in batch.split(32)]
        return float(torch.stack(parts).mean())


def _loss_as_written(model: TinyTransformerLM, batch: torch.Tensor) -> float | None:
    """The same, by the step that writes."""
    cache = KVCache(model.config, 1)
    with torch.inference_mode():
        step = native_step(model, cache)
        if step is None:
            return None
        losses = []
        for row in batch:
            cache.rewind(0)
            logits = torch.cat([step(ids) for ids in row[:-1].split(MOST_ITEMS)])
            losses.append(cross_entropy(logits, row[1:]))
    return float(torch.stack(losses).mean())


if __name__ == "__main__":
    run()
