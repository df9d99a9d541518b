"""The parts of a tokenizer.json around its model: added tokens, normalizer, template, spaces, decoder; read, checked, written.

The format is described by the `tokenizers` library's documentation ("Components"). Nothing is ignored: a part that would change ids
and that we cannot honour is refused by name. Left out: the models (`hugging_face_models.py`). Read before: `metaspace.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tiny_transformer.config import check
from tiny_transformer.tokenization.normalizing import Step, check_steps, normalize
from tiny_transformer.tokenization.pieces import Template

Part = dict[str, Any]
ELSEWHERE = "Use the tokenizers library for this file"


def refuse(condition: bool, what: str, must: str, remedy: str = ELSEWHERE) -> None:
    """Raise ConfigError "tokenizer.json: what: must. remedy" when `condition` holds."""
    check(not condition, f"tokenizer.json: {what}", must, remedy)


def known_keys(part: Part, keys: Iterable[str]) -> None:
    """Refuse a part that says more than we read: it would mean something."""
    unknown = next((key for key in part if key not in {"type", *keys}), None)
    refuse(unknown is not None, f"{part.get('type')} with {unknown!r}", f"known are {', '.join(keys) or 'no settings'}")


def flat(part: Part | None, inner: str) -> list[Part]:
    """The steps of a part: none, one, or those of a Sequence, which holds them under the name `inner`."""
    if part is None:
        return []
    right = isinstance(part, dict) and isinstance(part.get("type"), str)
    refuse(not right, f"{part!r} among {inner}", "it must be an object with a type", "Mend the file")
    if part["type"] != "Sequence":
        return [part]
    refuse(not isinstance(part.get(inner), list), f"Sequence without {inner}", "it must list its steps", "Mend the file")
    return [step for one in part[inner] for step in flat(one, inner)]


def sequence(steps: Sequence[Part], inner: str) -> Part | None:
    """The inverse of `flat`."""
    return None if not steps else steps[0] if len(steps) == 1 else {"type": "Sequence", inner: list(steps)}


# --- pieces and added tokens ------------------------------------------------------------------------------------------


def pieces_by_id(vocab: Mapping[str, int], added: Sequence[Part]) -> tuple[dict[int, str], list[str]]:
    """All pieces by their ids, in order, and those among them that are added tokens, in the file's order."""
    by_id: dict[int, str] = {}
    for piece, i in [*vocab.items(), *((token["content"], token["id"]) for token in added)]:
        whole = isinstance(piece, str) and isinstance(i, int) and not isinstance(i, bool) and i >= 0
        refuse(not whole, f"token {piece!r} with the id {i!r}", "ids must be whole numbers from 0", "Mend the file")
        other = by_id.setdefault(i, piece)
        refuse(other != piece, f"id {i} for {other!r} and {piece!r}", "each id must have one token", "Mend the file")
    for token in added:
        known, what = vocab.get(token["content"], token["id"]), f"added token {token['content']!r} with the id {token['id']}"
        refuse(known != token["id"], what, f"in the vocabulary its id is {known}", "Mend the file")
    contents = [token["content"] for token in added]
    twice = next((content for content in contents if contents.count(content) > 1), None) if len(set(contents)) < len(contents) else None
    refuse(twice is not None, f"added token {twice!r} twice", "it must have one id", "Mend the file")
    return dict(sorted(by_id.items())), contents


def in_a_row(by_id: Mapping[int, str]) -> list[str]:
    """The pieces as a list. Refused where an id between them has none."""
    hole = next((i for i in range(len(by_id)) if i not in by_id), None)
    refuse(hole is not None, f"no token has the id {hole}", f"{len(by_id)} ids must run from 0 without a hole", "Add a token there")
    return list(by_id.values())


def read_added(file: Part, steps: Sequence[Step]) -> list[Part]:
    """The added tokens, special or not: each is one id wherever its text stands. Refused where that is not so."""
    added = file.get("added_tokens") or []
    refuse(not isinstance(added, list), f"added_tokens {added!r}", "it must be a list", "Mend the file")
    for token in added:
        right = isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"] and isinstance(token.get("id"), int)
        refuse(not right, f"added token {token!r}", "it must have a content and an id", "Mend the file")
        for option in ("single_word", "lstrip", "rstrip"):
            refuse(bool(token.get(option)), f"added token {token['content']!r} with {option}", "we do not honour that", "Set it to false")
        changed = bool(token.get("normalized")) and bool(steps)
        refuse(changed, f"added token {token['content']!r} is normalized", "we look for it in the text as it is", "Set normalized to false")
    # The library looks for tokens that are not normalized first, and only then for the others in what is left.
    early, late = ([token["content"] for token in added if bool(token.get("normalized")) == value] for value in (False, True))
    clash = next(((one, two) for one in early for two in late if _overlap(one, two)), None)
    refuse(clash is not None, f"added tokens {clash} overlap", "one is normalized, the other is not", "Set both alike")
    return added


def _overlap(one: str, two: str) -> bool:
    """Whether both can claim the same characters of a text."""
    touch = any(one[-n:] == two[:n] or two[-n:] == one[:n] for n in range(1, min(len(one), len(two)) + 1))
    return touch or one in two or two in one


def write_added(special: Mapping[str, int]) -> list[Part]:
    """Our special tokens as added tokens."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": i, "content": token, **plain} for token, i in sorted(special.items(), key=lambda item: item[1])]


# --- normalizer and template ------------------------------------------------------------------------------------------


def read_normalizers(file: Part) -> list[Step]:
    """The normalizer's steps. Raises ConfigError for one that we do not have."""
    return check_steps(flat(file.get("normalizer"), "normalizers"))


def read_template(file: Part) -> Template | None:
    """What the post-processor puts around a text, in the library's short notation; None where it adds nothing."""
    template: Template | None = None
    for step in flat(file.get("post_processor"), "processors"):
        kind = step["type"]
        if kind == "ByteLevel":
            continue  # it moves offsets only
        refuse(kind not in ("TemplateProcessing", "BertProcessing", "RobertaProcessing"), f"post-processor {kind}", "we do not have it")
        refuse(template is not None, "two post-processors that add tokens", "there may be one")
        if kind == "TemplateProcessing":
            template = {key: [_short(entry) for entry in step[key]] for key in ("single", "pair")}
        else:
            bos, eos = step["cls"][0], step["sep"][0]
            second = [eos, "$B:0", f"{eos}:0"] if kind == "RobertaProcessing" else ["$B:1", f"{eos}:1"]
            template = {"single": [bos, "$A", eos], "pair": [bos, "$A", eos, *second]}
            template = {key: [entry.removesuffix(":0") for entry in entries] for key, entries in template.items()}
    return template


def _short(entry: Part) -> str:
    ((kind, says),) = entry.items()
    name = f"${says['id']}" if kind == "Sequence" else says["id"]
    return name if says["type_id"] == 0 else f"{name}:{says['type_id']}"


def write_template(template: Template | None, special: Mapping[str, int]) -> Part | None:
    """The inverse: a TemplateProcessing."""
    if template is None:
        return None

    def long(entry: str) -> Part:
        name, _, type_id = entry.rpartition(":") if entry.rpartition(":")[2].isdigit() and entry not in special else (entry, "", "0")
        says = {"id": name.removeprefix("$") if name not in special else name, "type_id": int(type_id)}
        return {"Sequence" if name.startswith("$") and name not in special else "SpecialToken": says}

    names = [entry.get("SpecialToken", {}).get("id") for part in template.values() for entry in map(long, part)]
    tokens = {name: {"id": name, "ids": [special[name]], "tokens": [name]} for name in names if name is not None}
    parts = {key: [long(entry) for entry in part] for key, part in template.items()}
    return {"type": "TemplateProcessing", **parts, "special_tokens": tokens}


# --- spaces -----------------------------------------------------------------------------------------------------------

LINES: Part = {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False}
"""Each line end a word of its own."""


def read_metaspace(part: Part) -> dict[str, Any]:
    """`prepend`, `split` and `space` of a Metaspace part; older files say add_prefix_space."""
    known_keys(part, ("replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"))
    prepend = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
    return {"prepend": prepend, "split": part.get("split", True), "space": part["replacement"]}


def read_spaces(file: Part, steps: Sequence[Step]) -> dict[str, Any]:
    """The settings of a `MetaspaceTokenizer`, from pre-tokenizer and normalizer."""
    parts = flat(file.get("pre_tokenizer"), "pretokenizers")
    lines = parts[:1] == [LINES]
    parts = parts[1:] if lines else parts
    unspaced = normalize(" ", steps, begins=False)
    if parts and parts[0]["type"] == "Split" and parts[0].get("pattern") == {"String": " "} and " " not in unspaced:
        parts = parts[1:]  # Gemma's: by then there are no spaces left to split at
    names = " + ".join(part["type"] for part in parts)
    refuse(names not in ("Metaspace", ""), f"pre-tokenizer {names}", "here it must be Metaspace, or a Split at line ends and Metaspace")
    if parts:
        return {"lines": lines, **read_metaspace(parts[0])}
    refuse(" " in unspaced or not unspaced, "no pre-tokenizer", "spaces must become ▁ there or in the normalizer")
    return {"lines": lines, "prepend": "never", "split": False, "space": unspaced}


def write_spaces(tokenizer: Any) -> tuple[Part | None, Part]:
    """Pre-tokenizer and decoder of a `MetaspaceTokenizer`."""
    mark = {"type": "Metaspace", "replacement": tokenizer.space, "prepend_scheme": tokenizer.prepend, "split": tokenizer.split}
    pre_tokenizer = sequence([*([LINES] if tokenizer.lines else []), mark], "pretokenizers")
    if tokenizer.first_space == ("keep" if tokenizer.prepend == "never" else "all"):
        return pre_tokenizer, sequence([mark, *([{"type": "ByteFallback"}] if tokenizer.byte_fallback else [])], "decoders") or mark
    steps: list[Part] = [{"type": "Replace", "pattern": {"String": tokenizer.space}, "content": " "}]
    steps += [{"type": "ByteFallback"}] if tokenizer.byte_fallback else []
    steps += [{"type": "Fuse"}]
    steps += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if tokenizer.first_space == "one" else []
    refuse(tokenizer.first_space == "all", "first_space 'all' with prepend 'never'", "the format cannot say that")
    return pre_tokenizer, {"type": "Sequence", "decoders": steps}


def read_first_space(file: Part, settings: Mapping[str, Any], byte_fallback: bool) -> str | None:
    """What the decoder does with spaces at the beginning; None where there is no decoder."""
    steps = flat(file.get("decoder"), "decoders")
    names = [step["type"] for step in steps]
    bytes_there = ["ByteFallback"] if byte_fallback else []
    if not steps:
        return None
    if names == ["Metaspace", *bytes_there]:
        says = read_metaspace(steps[0])
        must = f"spaces are marked with {settings['space']!r}"
        refuse(says["space"] != settings["space"], f"decoder Metaspace for {says['space']!r}", must)
        return "keep" if says["prepend"] == "never" else "all"
    plain = names in (["Replace", *bytes_there, "Fuse"], ["Replace", *bytes_there, "Fuse", "Strip"])
    refuse(not plain, f"decoder {' + '.join(names)}", "it must be Metaspace, or Replace + ByteFallback + Fuse (+ Strip)")
    undo = {"type": "Replace", "pattern": {"String": settings["space"]}, "content": " "}
    refuse(steps[0] != undo, f"decoder {steps[0]}", f"it must replace {settings['space']!r} by a space")
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    refuse(names[-1] == "Strip" and steps[-1] != strip, f"decoder {steps[-1]}", "it must strip one space at the beginning")
    return "one" if names[-1] == "Strip" else "keep"


if __name__ == "__main__":
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}
    template = read_template({"post_processor": bert})
    print(template)
    print(write_template(template, {"[CLS]": 101, "[SEP]": 102}))
