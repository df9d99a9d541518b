"""How a dialogue becomes the text that a chat model was trained on: its own template, a small program in the language Jinja.

A template comes with the model, so it is a stranger's program: it runs in Jinja's sandbox, which reaches nothing but the messages.
Jinja (the package jinja2) is loaded when a template is first applied. Read before: nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from tiny_transformer.config import ConfigError

Message = Mapping[str, str]
"""{"role": "system", "user" or "assistant", "content": …}."""


@dataclass(frozen=True)
class ChatTemplate:
    """A model's template, and the texts of the tokens that begin and end."""

    text: str
    bos: str = ""
    eos: str = ""

    def render(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """The dialogue as text; with `answer` up to where the model's next answer begins.

        Raises ConfigError where the template refuses the dialogue, is broken, or Jinja is not installed.

        >>> ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}").render([{"role": "user", "content": "Hi"}])
        '<user>Hi'
        """
        try:
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ModuleNotFoundError:
            raise ConfigError("this model's chat template needs the package jinja2: it is not installed. Try: pip install jinja2") from None
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        environment.filters["tojson"] = _to_json
        try:
            return environment.from_string(self.text).render(
                messages=[dict(message) for message in messages], add_generation_prompt=answer, bos_token=self.bos, eos_token=self.eos
            )
        except _RefusedError as error:
            raise ConfigError(f"the model's chat template refuses this dialogue ({error}). Change the messages") from None
        except Exception as error:  # a stranger's program can break in any way
            raise ConfigError(f"the model's chat template fails ({error}). Continue texts without it") from error

    def to_dict(self) -> dict[str, str]:
        """As JSON-able values; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> "ChatTemplate":
        """From `to_dict`'s values."""
        return cls(**values)


class _RefusedError(Exception):
    """The template called raise_exception."""


def _refuse(message: str) -> None:
    raise _RefusedError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """Plain JSON: Jinja's own filter writes < and & as HTML needs them."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


if __name__ == "__main__":
    lines = ChatTemplate(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        eos="<|im_end|>",
    )
    print(lines.render([{"role": "user", "content": "Who is there?"}]))
    try:
        ChatTemplate("{{ raise_exception('only one message') }}").render([])
    except ConfigError as error:
        print("caught:", error)
