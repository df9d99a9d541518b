"""Cached generation against transformers' own, same shape, same machine, same run: batch 1 and batch 16."""

from functools import partial

import torch
import transformers

from benchmarks.harness import Result, compare
from benchmarks.training import theirs_config
from tiny_transformer.config import ModelConfig, SampleConfig
from tiny_transformer.model import TinyTransformerLM
from tiny_transformer.sampling.generator import TextGenerator
from tiny_transformer.tokenization.char import CharTokenizer

CONFIG = ModelConfig(vocab_size=65, max_seq_len=256, d_model=384, n_layers=6, n_heads=6, activation="gelu_tanh")
ALPHABET = "".join(chr(33 + i) for i in range(65))
PROMPT, NEW = ALPHABET[:16], 200
AIMS = {1: 1.2, 16: 1.5}


def run() -> list[Result]:
    """Top-k sampling of 200 tokens behind a prompt of 16."""
    mine = TextGenerator(TinyTransformerLM(CONFIG, seed=0).eval(), CharTokenizer.train(ALPHABET))
    settings = SampleConfig(temperature=0.8, top_k=40, max_tokens=NEW, seed=0)
    peer = transformers.GPT2LMHeadModel(theirs_config(CONFIG, use_cache=True)).eval()
    ids = torch.tensor([CharTokenizer.train(ALPHABET).encode(PROMPT)])

    def theirs(batch: int) -> None:
        torch.manual_seed(0)
        with torch.inference_mode():
            out = peer.generate(
                ids.expand(batch, -1), attention_mask=torch.ones(batch, ids.size(1), dtype=torch.long), do_sample=True,
                temperature=0.8, top_k=40, max_new_tokens=NEW, min_new_tokens=NEW, use_cache=True, pad_token_id=0,
            )  # fmt: skip
        if out.shape != (batch, ids.size(1) + NEW):
            raise RuntimeError(f"the peer wrote {tuple(out.shape)}: it stopped early")

    results = []
    for batch, aim in AIMS.items():
        results.append(
            compare(
                f"generation, 6 × 384, batch {batch}", partial(mine.generate_batch, [PROMPT] * batch, settings), partial(theirs, batch),
                work=batch * NEW, unit="tokens/s", peer_name="transformers", rounds=8, warm_up=1, aim=aim,
            )
        )  # fmt: skip
        print(results[-1].line(), flush=True)
    return results


if __name__ == "__main__":
    run()
