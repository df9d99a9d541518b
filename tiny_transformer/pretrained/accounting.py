"""Every tensor of a directory accounted for: what each of theirs is here, what stays behind, and all that does not fit.

Nothing but headers is read, and nothing is loaded before the whole account is right. Read before: `families.py`, `weight_files.py`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tiny_transformer.config import ConfigError, ModelConfig
from tiny_transformer.numpy_engine.model import weight_shapes
from tiny_transformer.pretrained.families import family_of, read_config
from tiny_transformer.pretrained.family import Family, our_words, to_model_config, unknown_entries
from tiny_transformer.pretrained.names import Rule, rules_of
from tiny_transformer.pretrained.weight_files import WeightFiles
from tiny_transformer.utils.safetensors_file import FLOATS, Entry, widen


@dataclass(frozen=True)
class Account:
    """What a directory's tensors are."""

    rules: dict[str, Rule]
    """Name in the file → what it is here."""
    again: dict[str, str] = field(default_factory=dict)
    """Name in the file → name in the file of which it must be a copy."""
    ignored: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    """Ours that begin as in a new model."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A directory that can be loaded: nothing of it is read yet but headers."""

    directory: Path
    family: Family
    config: ModelConfig
    values: dict[str, Any]
    """Its config.json."""
    files: WeightFiles
    account: Account

    @property
    def notes(self) -> list[str]:
        """What a person should know, one line each."""
        account, notes = self.account, []
        if account.left_behind:
            notes.append(f"left behind, no logit depends on them: {', '.join(account.left_behind)}")
        if account.new:
            notes.append(f"not in the files, so they begin as in a new model: {', '.join(account.new)}")
        if unknown := unknown_entries(self.family, self.values):
            notes.append(f"config.json says more that is not known here: {', '.join(unknown)}")
        return notes


def open_source(directory: str | os.PathLike[str]) -> Source:
    """Read config.json and the weights' headers of a Hugging Face directory, and account for all of it.

    Raises ConfigError in one line: what we can't do, by name, before the weights are looked at; then all differences at once.
    """
    directory = Path(directory)
    values = read_config(directory)
    family = family_of(values)
    config = to_model_config(family, values)
    files = WeightFiles(directory)
    account = account_for(family, config, files.entries)
    if account.problems:
        count = f"{len(account.problems)} difference{'s' if len(account.problems) > 1 else ''}"
        remedy = "Get config.json and weights of one model"
        raise ConfigError(f"{directory}: config.json and weights do not fit ({count}): {'; '.join(account.problems)}. {remedy}")
    config, account = _without_idle_biases(config, our_words(values), account, files)
    return Source(directory, family, config, values, files, account)


def _without_idle_biases(
    config: ModelConfig, said: ModelConfig | None, account: Account, files: WeightFiles
) -> tuple[ModelConfig, Account]:
    """Without the biases that went out as 0 because the family has them and the model had none, if they are 0 still."""
    if said is None or said.bias == config.bias or replace(said, bias=config.bias) != config:
        return config, account
    kept = weight_shapes(said)
    idle = [name for name, rule in account.rules.items() if not any(ours in kept for ours in rule.ours)]
    copies = [name for name, original in account.again.items() if original in idle]
    if any(widen(files.array(name), files.entries[name].dtype).any() for name in (*idle, *copies)):
        return config, account
    rules = {name: rule for name, rule in account.rules.items() if name not in idle}
    again = {name: original for name, original in account.again.items() if name not in copies}
    return said, replace(account, rules=rules, again=again, ignored=(*account.ignored, *idle, *copies))


def account_for(family: Family, config: ModelConfig, entries: Mapping[str, Entry]) -> Account:
    """What each tensor is, and every problem there is."""
    rules = {r.theirs: r for r in rules_of(family.table, config)}
    found, again, ignored, behind, problems = dict[str, str](), dict[str, str](), list[str](), list[str](), list[str]()
    for name, entry in entries.items():
        spelled = _present_name(name, family, rules)
        if spelled in rules and spelled in found:
            problems.append(f"{name} and {found[spelled]} are the same weight")
        elif spelled in rules:
            found[spelled] = name
        elif spelled in family.again:
            again[name] = family.again[spelled]
        elif _matches(spelled, family.ignored):
            ignored.append(name)
        elif _matches(spelled, family.left_behind):
            behind.append(name)
        else:
            problems.append(f"unexpected {name} {entry.shape}")
    for name, original in list(again.items()):  # a copy whose original is missing is the original
        if original in rules and original not in found:
            found[original] = name
            del again[name]
    missing = {name: r for name, r in rules.items() if name not in found}
    new = [ours for r in missing.values() for ours in r.ours]
    if not new or sorted(new) != sorted(name for r in rules.values() for name in r.ours if name in family.new):
        new = []
    problems += [f"missing {name} {r.their_shape(weight_shapes(config))}" for name, r in missing.items() if not new]
    problems += _misfits(config, rules, found, entries)
    problems += [
        f"{name} has shape {entries[name].shape}, and {found[o]}, which it repeats, {entries[found[o]].shape}"
        for name, o in again.items()
        if o in found and entries[name].shape != entries[found[o]].shape
    ]
    copies = {name: found[original] for name, original in again.items() if original in found}
    by_file = {name: rules[spelled] for spelled, name in found.items()}
    return Account(by_file, copies, tuple(ignored), tuple(behind), tuple(new), tuple(problems))


def _misfits(config: ModelConfig, rules: Mapping[str, Rule], found: Mapping[str, str], entries: Mapping[str, Entry]) -> list[str]:
    shapes, problems = weight_shapes(config), []
    for spelled, name in found.items():
        entry, must = entries[name], rules[spelled].their_shape(shapes)
        if entry.shape != must:
            problems.append(f"{name} has shape {entry.shape}, must be {must}")
        if entry.dtype not in FLOATS:
            problems.append(f"{name} has numbers of type {entry.dtype}, must be {', '.join(FLOATS)}")
    return problems


def _present_name(name: str, family: Family, rules: Mapping[str, Rule]) -> str:
    """The name as the family's table has it: with the prefix that a model without its output layer was saved without."""
    for old, new in family.respelled.items():
        name = name.removesuffix(old) + new if name.endswith(old) else name
    known = (*family.ignored, *family.left_behind)
    longer = family.prefix + name
    short = name not in rules and name not in family.again and not _matches(name, known)
    return longer if short and (longer in rules or _matches(longer, known)) else name


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


if __name__ == "__main__":
    from tiny_transformer.pretrained.gpt2 import GPT2

    config = to_model_config(GPT2, {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 5, "n_positions": 4})
    shapes = weight_shapes(config)
    entries = {r.theirs: Entry("F32", r.their_shape(shapes), Path()) for r in rules_of(GPT2.table, config)}
    entries["lm_head.weight"] = Entry("F32", (5, 8), Path())
    account = account_for(GPT2, config, entries)
    print(len(account.rules), "tensors, copies", account.again, "problems", account.problems)
    entries["transformer.h.1.ln_1.weight"] = entries.pop("transformer.h.0.ln_1.weight")
    entries["transformer.wte.weight"] = Entry("I8", (8, 5), Path())
    for problem in account_for(GPT2, config, entries).problems:
        print("problem:", problem)
