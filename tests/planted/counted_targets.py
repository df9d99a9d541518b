"""Planted bugs: what counting expects, soft targets, shuffled windows."""

from tests.planted.bug import Bug

FILE, LOSS, HAND, DATA, LOOP = (
    f"tiny_transformer/{name}.py"
    for name in ("training/counted_targets", "training/objectives", "numpy_engine/objectives", "training/dataset", "training/loop")
)

BUGS = [
    Bug("a place's own token stays in its counts", FILE, "number = counts[there] - np.where(there == own[each], lost[each], 0)", "number = counts[there]", "counted_targets"),
    Bug("the total keeps the place", FILE, "kept = total[context] - lost", "kept = total[context]", "counted_targets"),
    Bug("left out below too, whatever the longer entry's count", FILE, "np.unique(2 * parent + (longer.times == 1))", "np.unique(2 * parent + (longer.times >= 1))", "counted_targets"),
    Bug("the state of another entry", FILE, "+ (level.times[entry] == 1)", "+ (counts[entry] == 1)", "counted_targets"),
    Bug("how often, in place of after how many", FILE, "counts = np.bincount(parent, minlength=entries)", "counts = level.times", "counted_targets"),
    Bug("the discounts with the place in them", FILE, "rest = taken[context] - discount[np.minimum(own_count, 3)] + discount[np.minimum(own_count - lost, 3)]", "rest = taken[context]", "counted_targets"),
    Bug("one discount for all", FILE, "np.clip([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3], 0, [0, 1, 2, 3])", "np.clip([0, 1 - 2 * y * n2 / n1, 1 - 2 * y * n2 / n1, 1 - 2 * y * n2 / n1], 0, [0, 1, 2, 3])", "counted_targets"),
    Bug("discounts above the count", FILE, "0, [0, 1, 2, 3])", "-9, [9, 9, 9, 9])", "counted_targets"),
    Bug("a lonely context takes everything", FILE, "share = np.where(kept > 0, rest / np.maximum(kept, 1), 1.0)", "share = np.where(kept > 0, rest / np.maximum(kept, 1), 0.0)", "counted_targets"),
    Bug("contexts wrap around the text", FILE, "np.concatenate((np.full(k - 1, vocab_size), ids))[:places]", "np.roll(ids, k - 1)[:places]", "counted_targets"),
    Bug("a context one token too short", FILE, "for k in range(order + 1):\n        if k:", "for k in range(order + 1):\n        if k > 1:", "counted_targets"),
    Bug("the table may be of any size", FILE, "size <= MOST_BYTES, f", "True, f", "counted_targets"),
    Bug("expected where nothing is asked", LOSS, ".to(log_probabilities.dtype) * asked[..., None]", ".to(log_probabilities.dtype)", "counted_targets"),
    Bug("the shares the wrong way round", LOSS, "(1 - share) * cross_entropy(log_probabilities, targets, \"sum\") + share * counted", "share * cross_entropy(log_probabilities, targets, \"sum\") + (1 - share) * counted", "counted_targets"),
    Bug("a mean over all places", LOSS, "total / asked.sum().clamp(min=1)", "total / asked.numel()", "counted_targets"),
    Bug("any word is a mean", LOSS, "    check_choice(\"reduction\", reduction, (\"mean\", \"sum\"))\n    asked", "    asked", "counted_targets"),
    Bug("nothing divided by nothing", LOSS, "total / asked.sum().clamp(min=1)", "total / asked.sum()", "counted_targets"),
    Bug("by hand, half of the sum is a mean", HAND, "logits - log_sum.reshape(*targets.shape, 1))).sum()) / divisor", "logits - log_sum.reshape(*targets.shape, 1))).sum())", "counted_targets"),
    Bug("by hand, the gradient of the sum", HAND, "+ share / divisor * counted", "+ share * counted", "counted_targets"),
    Bug("the model's loss is always a mean", "tiny_transformer/numpy_engine/model.py", "*expected, reduction)", "*expected)", "counted_targets"),
    Bug("by hand, expected where nothing is asked", HAND, "probabilities.astype(logits.dtype) * asked", "probabilities.astype(logits.dtype)", "counted_targets"),
    Bug("the softmax's part is forgotten", HAND, "np.exp(logits - log_sum.reshape(*targets.shape, 1)) * probabilities.sum(-1, keepdims=True) - probabilities", "-probabilities", "counted_targets"),
    Bug("the same order in each epoch", DATA, "np.random.default_rng([seed, seq_len, epoch])", "np.random.default_rng([seed, seq_len])", "counted_targets"),
    Bug("always cut at the same place", DATA, "generator.integers(0, spare + 1) + seq_len", "0 * generator.integers(0, spare + 1) + seq_len", "counted_targets"),
    Bug("the last token is never asked for", DATA, "generator.integers(0, spare + 1) + seq_len", "generator.integers(0, max(spare, 1)) + seq_len", "counted_targets"),
    Bug("an epoch begins anew with each batch", DATA, "starts[numbers - epochs[0] * per_epoch]", "starts[numbers - numbers[0]]", "counted_targets"),
    Bug("expectations of other places", LOOP, "rows = batch_at(counted.rows, *shape, settings.windows).inputs", "rows = batch_at(counted.rows, *shape).inputs", "counted_targets"),
    Bug("expectations of the place after", LOOP, "rows = batch_at(counted.rows, *shape, settings.windows).inputs", "rows = batch_at(counted.rows, *shape, settings.windows).targets", "counted_targets"),
    Bug("the setting is not heard", LOOP, "batch = self._ask(batch_at(self._ids_of_epoch(), *shape, settings.windows))", "batch = self._ask(batch_at(self._ids_of_epoch(), *shape))", "counted_targets"),
    Bug("a text that changes is counted", LOOP, "not settings.counted_share or (fresh is None and objective is causal)", "not settings.counted_share or objective is causal", "counted_targets"),
]
