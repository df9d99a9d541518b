"""Planted bugs: guesses, their acceptance, the cache that goes back, and n-grams."""

from tests.planted.bug import Bug

ACCEPT = "tiny_transformer/sampling/acceptance.py"
STEP = "tiny_transformer/sampling/speculative.py"
READER = "tiny_transformer/sampling/rewinding.py"
NGRAMS = "tiny_transformer/sampling/ngram_draft.py"

BUGS = [
    Bug("after a rejection the target is drawn from", ACCEPT, "return place, residual(p, q)", "return place, p", "acceptance speculative"),
    Bug("the residual is not normalised", ACCEPT, "torch.where(whole > 0, missing / whole, target)", "torch.where(whole > 0, missing, target)", "acceptance"),
    Bug("the residual is 0/0 where both agree", ACCEPT, "return torch.where(whole > 0, missing / whole, target)", "return missing / whole", "acceptance"),
    Bug("the residual the wrong way round", ACCEPT, "missing = (target - draft).clamp(min=0)", "missing = (draft - target).clamp(min=0)", "acceptance"),
    Bug("accepted where u is above p / q", ACCEPT, "float(q[guess]) >= float(p[guess])", "float(q[guess]) <= float(p[guess])", "acceptance"),
    Bug("accepted as if the draft had been sure", ACCEPT, "uniforms[place] * float(q[guess]) >= float(p[guess])", "uniforms[place] >= float(p[guess])", "acceptance"),
    Bug("an impossible guess accepted at u = 0", ACCEPT, "float(q[guess]) >= float(p[guess])", "float(q[guess]) > float(p[guess])", "acceptance"),
    Bug("after all guesses, the distribution before the last one", ACCEPT, "target[len(guesses)]", "target[max(0, len(guesses) - 1)]", "acceptance"),
    Bug("judged by the numbers that made the guesses", STEP, "uniforms[guesses : 2 * guesses]", "uniforms[:guesses]", "speculative"),
    Bug("the last token by the number that judged the last guess", STEP, "choose(rest.numpy(), uniforms[2 * guesses])", "choose(rest.numpy(), uniforms[2 * guesses - 1])", "speculative"),
    Bug("the rules of the target see the prompt only", STEP, "texts = [text[: len(ids) + place]", "texts = [text[: len(ids)]", "speculative"),
    Bug("guessed from the text without the guesses", STEP, "draft.logits(text), [text]", "draft.logits(ids), [text]", "speculative"),
    Bug("a pass reads across the jump of the window", STEP, ", room(len(ids), target.limit))", ")", "speculative"),
    Bug("a guess too many for max_tokens", STEP, "end - len(ids) - 1, room", "end - len(ids), room", "speculative"),
    Bug("every row has the same seed", STEP, "replace(config, seed=config.seed + row)", "config", "speculative"),
    Bug("tokens that only the model has", STEP, "logits[:, : self.tokenizer.vocab_size]", "logits", "speculative"),
    Bug("broken models write on", STEP, "            check_finite(float(exact.max(-1).sum()))\n", "", "speculative"),
    Bug("guesses after the wrong one count as wrong", STEP, "self.rejected += step.accepted < step.guessed", "self.rejected += step.guessed - step.accepted", "speculative"),
    Bug("the penalty forgotten", STEP, "texts if config.repetition_penalty != 1 else None", "None", "speculative"),
    Bug("rejected guesses stay in the cache", READER, "        self._cache.rewind(kept)\n", "        self._cache.rewind(self._cache.length if kept else 0)\n", "speculative"),
    Bug("the first window for ever", READER, "list(ids[start:])", "list(ids[-self.limit :])", "speculative"),
    Bug("logits of tokens that were not read again", READER, "window[: len(window) - last])", "window[:-1])", "speculative"),
    Bug("a larger cache believed to be full", READER, "2 * len(window))), []", "2 * len(window))), self._seen", "speculative"),
    Bug("an interrupted pass believed to be read", READER, "self._seen = beginning[:kept]", "self._seen = beginning", "speculative"),
    Bug("the cache goes back in its last layer alone", "tiny_transformer/kv_cache.py", "        for layer in self.layers:\n            layer.length = length\n", "        self.layers[-1].length = length\n", "speculative"),
    Bug("n-grams trust a context by its count alone", NGRAMS, "witten_bell(counts, total, kinds, mixed)", "counts / total", "speculative"),
    Bug("n-grams read the context backwards", NGRAMS, "self.vocab_size ** (m - 1)", "self.vocab_size ** (len(self._tables) - 1 - m)", "speculative"),
    Bug("n-grams of the text so far of one context only", NGRAMS, "places = places[ids[places - m] == before]", "places = np.flatnonzero(ids == before)[:-1] + 1", "speculative"),
    Bug("a draft of another alphabet", "tiny_transformer/cli/drafts.py", "same = other.tokenizer.to_dict() == writer.tokenizer.to_dict()", "same = other.tokenizer.vocab_size == writer.tokenizer.vocab_size", "speculative"),
]
