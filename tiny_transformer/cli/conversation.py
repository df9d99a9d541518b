"""A dialogue with a chat model, written as its own template wants it. Read before: pretrained/chat_template.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tiny_transformer.config import SampleConfig
from tiny_transformer.pretrained.chat_template import ChatTemplate


@dataclass
class Conversation:
    """What was said so far, and how the next prompt is made of it."""

    template: ChatTemplate
    messages: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, lineage: Mapping[str, Any]) -> "Conversation | None":
        """Of a checkpoint that came with a template; None for any other."""
        values = lineage.get("chat_template")
        return None if values is None else cls(ChatTemplate.from_dict(values))

    def prompt(self, said: str) -> str:
        """The whole dialogue with a new message of the user, up to where the answer begins. Nothing is kept yet."""
        return self.template.render([*self.messages, {"role": "user", "content": said}])

    def keep(self, said: str, answer: str) -> None:
        """Remember a message and its answer."""
        self.messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]

    def settings(self, settings: SampleConfig) -> SampleConfig:
        """The same, and stop where the template's answers end."""
        end = self.template.eos
        return replace(settings, stop=(*settings.stop, end)) if end and end not in settings.stop else settings


if __name__ == "__main__":
    talk = Conversation(ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>", eos="<end>"))
    print(talk.prompt("Who is there?"))
    talk.keep("Who is there?", "Nay, answer me.")
    print(talk.prompt("Long live the king!"), talk.settings(SampleConfig()).stop)
