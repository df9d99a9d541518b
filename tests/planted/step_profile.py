"""Planted bugs: counting a step's cost, and measuring whose time it is."""

from tests.planted.bug import Bug

COST, LINE = "tiny_transformer/step_cost.py", "tiny_transformer/roofline.py"
WATCH, STEPS = "tiny_transformer/training/part_times.py", "tiny_transformer/training/step_times.py"
TOKENS, FLAGS = "tiny_transformer/sampling/token_times.py", "tiny_transformer/cli/profile_settings.py"

BUGS = [
    Bug("a multiply-add counted as one operation", COST, "    product = 2 * n * weights", "    product = n * weights", "step_cost"),
    Bug("backward as much as forward", COST, "Work(2 * product, n * biases + (branches", "Work(product, n * biases + (branches", "step_cost"),
    Bug("gate forgotten", COST, "    yield \"feed-forward up\", _times(_linear(p, d, gates * ff,", "    yield \"feed-forward up\", _times(_linear(p, d, ff,", "step_cost"),
    Bug("grouped keys counted as all heads", COST, "_linear(p, d, q + 2 * kv, bias", "_linear(p, d, 3 * q, bias", "step_cost"),
    Bug("window one too wide", COST, "max(0, place - reach + 1) + 1", "max(0, place - reach) + 1", "step_cost"),
    Bug("causal mask hides the diagonal", COST, "    return sum((place if causal", "    return sum((place - 1 if causal", "step_cost"),
    Bug("recomputed scores forgotten", COST, "again = product if p.fused else 0", "again = 0", "step_cost"),
    Bug("stream's gradient summed in post-norm's norms", COST, "pre = c.norm_position == \"pre\"\n", "pre = True\n", "step_cost"),
    Bug("last micro-batches too small", COST, "batch_size // accumulate + (index < batch_size % accumulate)", "batch_size // accumulate", "step_cost"),
    Bug("tied gradient not added", COST, "3 * tables * MASTER) if c.tie_weights", "3 * tables * MASTER) if not c.tie_weights", "step_cost"),
    Bug("AdamW's moments forgotten", COST, "MASTER * (7 * rest + 5 * hidden)", "MASTER * (3 * rest + 5 * hidden)", "step_cost"),
    Bug("Newton–Schulz on the larger side", COST, "r, c = min(rows, columns), max(rows, columns)", "r, c = max(rows, columns), min(rows, columns)", "step_cost"),
    Bug("usual count without what the mask hides", COST, "seq_len, fused=False, all_pairs=True)", "seq_len, fused=False)", "step_cost"),
    Bug("bound is the shorter time", LINE, "        return max(self.compute(work), self.memory(work))", "        return min(self.compute(work), self.memory(work))", "roofline"),
    Bug("phases share one bound", LINE, "        return sum(self.ceilings.bound(work) for work in self.works.values())", "        return self.ceilings.bound(self.work)", "roofline"),
    Bug("fused attention keeps the last of three", LINE, "        added[name, phase] = added.get((name, phase), Work()) + work", "        added[name, phase] = work", "roofline"),
    Bug("loss counted inside a compiled model", LINE, "phase != \"update\" and part != \"loss\":", "phase != \"update\":", "roofline"),
    Bug("a part's time holds what it calls", WATCH, "        self._open.append(part)\n", "        self._open.append(self._open[-1] if len(self._open) > 1 else part)\n", "part_times"),
    Bug("backward time to the last part forward", WATCH, "partial(_at_node, watch, watch.part_of(node))", "partial(_at_node, watch, OTHER)", "part_times"),
    Bug("nodes given to the part after theirs", WATCH, "place = bisect_right(self._made, node._sequence_nr(), key", "place = 1 + bisect_right(self._made[:-1], node._sequence_nr(), key", "part_times"),
    Bug("nodes of the first number given to the part before", WATCH, "        return self._made[place - 1][1] if place else OTHER", "        return self._made[max(0, place - 2)][1] if place else OTHER", "part_times"),
    Bug("backward counted as forward", WATCH, "    watch.phase = \"backward\"\n", "", "part_times"),
    Bug("forward stays backward", WATCH, "        watch.phase = \"forward\"\n        watch.end()", "        watch.end()", "part_times"),
    Bug("the watching's own time shown", WATCH, "return {key: seconds for key, seconds in sums.items() if key[0] != PROFILER}", "return sums", "part_times"),
    Bug("hooks left behind", WATCH, "stack.callback(module.register_forward_pre_hook(begin).remove)", "stack.callback(module.register_forward_pre_hook(begin).__class__)", "part_times"),
    Bug("late binding: every module the last part", WATCH, "lambda *_, part=part: watch.begin(part)", "lambda *_: watch.begin(part)", "part_times"),
    Bug("replaced functions left behind", WATCH, "        setattr(where, name, original) if own else delattr(where, name)", "        pass", "part_times"),
    Bug("softmax counted as scores", WATCH, "            self.watch.become(ATTENTION[1])\n", "", "part_times"),
    Bug("every step watched", STEPS, "watching=(step - WARM_UP) % 2 == 1)", "watching=True)", "part_times"),
    Bug("compiled model hooked", STEPS, "functions, inside=not whole))", "functions))", "part_times"),
    Bug("optimizer's time not ended", STEPS, "lambda *_: self.watch.end()).remove", "lambda *_: None).remove", "part_times"),
    Bug("the prompt counted as a token", TOKENS, "        if index >= WARM_UP:\n", "        if index >= 0:\n", "part_times"),
    Bug("beam search profiled as sampling", TOKENS, "    check(sampling.beams == 1,", "    check(sampling.beams >= 1,", "part_times"),
    Bug("a run's model changed by flags", FLAGS, "    check(not own,", "    check(True,", "profile_cli"),
    Bug("texts of a batch for one text", FLAGS, "{\"batch_size\": 1} if settings.generate and", "{\"batch_size\": 1} if not settings.generate and", "profile_cli"),
    Bug("any file may be drawn into", FLAGS, "        check(suffix in SUFFIXES,", "        check(bool(suffix),", "profile_cli"),
]
