"""Planted bugs: what each ingredient of the speedrun is worth."""

from tests.planted.bug import Bug

FILE, TESTS = "benchmarks/ingredients.py", "ingredients_benchmark"

BUGS = [
    Bug("an ingredient that stays on", FILE, '"decay": ["--schedule", "cosine", "--min-lr-ratio", "0.1"]', '"decay": ["--schedule", "cosine"]', TESTS),
    Bug("alone means all but it", FILE, "if name != kept for flag in flags]", "if name == kept for flag in flags]", TESTS),
    Bug("the recipe without anything is the recipe", FILE, "return [] if kind == ALL else", "return [] if kind in (ALL, PLAIN) else", TESTS),
    Bug("nothing to compare those alone with", FILE, 'found += [PLAIN, PLAIN + MORE] if "alone" in kinds else []', 'found += [PLAIN, PLAIN + MORE] if "without" in kinds else []', TESTS),
    Bug("the start counts as training", FILE, "round((60 * minutes - self.start) * self.rate)", "round(60 * minutes * self.rate)", TESTS),
    Bug("the first step begins with the command", FILE, "start = used - first * (later - used) / (second - first)", "start = used", TESTS),
    Bug("steps by the whole time", FILE, 'end["step"] / (end["trained_seconds"] - start)', 'end["step"] / end["trained_seconds"]', TESTS),
    Bug("each case has the steps of its own pace", FILE, "paces[self.base].steps(minutes)", "paces.get(self.name, paces[self.base]).steps(minutes)", TESTS),
    Bug("a quarter more is no more", FILE, "(LONGER if self.name.endswith(MORE) else 1)", "1", TESTS),
    Bug("the plain one has the recipe's steps", FILE, 'return ALL if self.name.split()[0] in (ALL, "without") else PLAIN', "return ALL", TESTS),
    Bug("one round is enough", FILE, "if len(rounds) >= ROUNDS}", "if rounds}", TESTS),
    Bug("everything is trained again", FILE, "if (one[0].name, *one[1:]) not in there]", "if one not in there]", TESTS),
    Bug("whatever the pace, it is there already", FILE, '(line["case"], line["seed"], line["steps"]) for line in lines', '(line["case"], line["seed"], Case(line["case"]).steps(known, minutes)) for line in lines', TESTS),
    Bug("runs pile up", FILE, "    found = loss_in_windows(model, val_ids)\n    shutil.rmtree(out)\n", "    found = loss_in_windows(model, val_ids)\n", TESTS),
    Bug("short runs pile up", FILE, "    lines = Run.open(out).metrics()\n    shutil.rmtree(out)\n", "    lines = Run.open(out).metrics()\n", TESTS),
    Bug("compiled while others are measured", FILE, 'list(pool.map(lambda case: warm(case, Path(scratch)), left[0]))', "pass", TESTS),
    Bug("a round is forgotten", FILE, "if there[case.name] < ROUNDS - later]", "if there[case.name] < 1]", TESTS),
    Bug("lines of another pace are in the mean", FILE, 'if "case" in line and line["steps"] == Case(line["case"]).steps(known, minutes):', 'if "case" in line:', TESTS),
    Bug("speeds beside the recipe's", FILE, "known[name].rate / known[case.base].rate", "known[name].rate / known[ALL].rate", TESTS),
    Bug("one more degree of freedom for each case", FILE, "freedom = sum(len(values) - 1 for values", "freedom = sum(len(values) for values", TESTS),
    Bug("the interval of one mean", FILE, "math.sqrt(1 / len(values) + 1 / len(base))", "math.sqrt(1 / len(values))", TESTS),
    Bug("one deviation for good and bad models", FILE, "if Case(name).base == base])", "])", TESTS),
    Bug("a normal distribution for few seeds", FILE, "student(0.95, freedom) *", "1.96 *", TESTS),
    Bug("one side only", FILE, "return 2 * scale * t / parts / 3", "return scale * t / parts / 3", TESTS),
    Bug("trained by the clock after all", FILE, 'train(words_of(case, seed, out, "--max-steps", str(steps)))', 'train(words_of(case, seed, out, "--minutes", str(steps)))', TESTS),
    Bug("both threads", FILE, '"--threads", "1", *case.flags', '"--threads", "2", *case.flags', TESTS),
    Bug("the pace is always measured", FILE, "if chosen.pace or not bases <= set(paces(read())):", "if True:", TESTS),
    Bug("the pace is thought to be there", FILE, "if chosen.pace or not bases <= set(paces(read())):", "if chosen.pace:", TESTS),
    Bug("it trains after the pace", FILE, "            if not chosen.pace:\n                run(", "            if chosen:\n                run(", TESTS),
]
