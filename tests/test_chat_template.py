"""Chat templates: the same text as transformers makes, in a sandbox, refused in one line; and `tiny chat` applying them."""

import sys

import pytest

from tiny_transformer.cli.chat import Chat
from tiny_transformer.cli.conversation import Conversation
from tiny_transformer.config import ConfigError, SampleConfig
from tiny_transformer.pretrained.chat_template import ChatTemplate

chat_utils = pytest.importorskip("transformers.utils.chat_template_utils", reason="the `test` extra has transformers, the peer here")
pytest.importorskip("jinja2", reason="templates are applied by jinja2")

CHATML = (
    "{%- for message in messages -%}\n    {{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}\n"
    "{%- endfor -%}\n{%- if add_generation_prompt -%}\n    {{ '<|im_start|>assistant\n' }}\n{%- endif -%}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system %}{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
BLOCKS = """{% for m in messages %}
  {% if m.role == "user" %}
U: {{ m.content | tojson }}
  {% else %}
A: {{ m.content }}{% if loop.last %}{% break %}{% endif %}

  {% endif %}
{% endfor %}"""
TALK = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "  Who's there? <b>&é\n"},
    {"role": "assistant", "content": "Nay."}, {"role": "user", "content": "Stand!"},
]  # fmt: skip


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("template", [CHATML, LLAMA2, BLOCKS])
def test_the_text_is_theirs(template, answer):
    for talk in (TALK, TALK[1:], TALK[1:2]):
        wanted, _ = chat_utils.render_jinja_template(
            [talk], chat_template=template, add_generation_prompt=answer, bos_token="<s>", eos_token="</s>"
        )
        assert ChatTemplate(template, "<s>", "</s>").render(talk, answer=answer) == wanted[0]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LLAMA2, "refuses this dialogue (roles must alternate"),
        ("{{ messages[0].content.__class__.__mro__ }}", "fails"),
        ("{% for %}", "fails"),
        ("{{ messages + 1 }}", "fails"),
        ("{{ messages.append(1) }}", "fails"),
        ("{% for i in range(10000000) %}{% endfor %}", "fails"),
        ("{% include 'x' %}", "fails"),
        ("{{ 1 / 0 }}", "fails"),
    ],
)
def test_broken_and_evil_templates_are_one_line(template, words):
    with pytest.raises(ConfigError) as caught:
        ChatTemplate(template).render([{"role": "assistant", "content": "I begin"}])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_without_jinja_one_line_says_what_to_do(monkeypatch):
    for name in ("jinja2", "jinja2.sandbox"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="pip install jinja2"):
        ChatTemplate(CHATML).render(TALK)


def test_there_and_back():
    template = ChatTemplate(CHATML, "<s>", "</s>")
    assert ChatTemplate.from_dict(template.to_dict()) == template
    assert Conversation.of({"chat_template": template.to_dict()}).template == template
    assert Conversation.of({"family": "llama"}) is None


class Writer:
    """Answers with what it was asked, backwards, and remembers prompts and settings."""

    training_text = None
    drafted = None

    def __init__(self, lineage):
        self.lineage, self.asked = lineage, []
        self.generator = self.tokenizer = self

    def encode(self, text):
        return list(text)

    def stream(self, prompt, settings):
        self.asked.append((prompt, settings))
        yield from ("answer ", str(len(self.asked)))


def test_chat_applies_the_template_to_the_whole_dialogue(capsys):
    template = ChatTemplate(CHATML, eos="<|im_end|>")
    writer = Writer({"chat_template": template.to_dict()})
    chat = Chat(writer, SampleConfig(seed=1, stop=("STOP",)))
    for line in ("Who is there?", "", "Stand\\nstill!"):
        assert chat.handle(line)
    first = "<|im_start|>user\nWho is there?<|im_end|>\n<|im_start|>assistant\n"
    assert [prompt for prompt, _ in writer.asked] == [
        first, first + "answer 1<|im_end|>\n<|im_start|>user\nStand\nstill!<|im_end|>\n<|im_start|>assistant\n",
    ]  # fmt: skip
    assert all(settings.stop == ("STOP", "<|im_end|>") for _, settings in writer.asked)
    assert writer.asked[0][1].seed != writer.asked[1][1].seed
    out = capsys.readouterr().out
    assert "answer 1" in out and "answer 2" in out and "im_start" not in out
    chat.handle("/reset")
    chat.handle("Again")
    assert writer.asked[-1][0].count("im_start") == 2
    assert len(chat.transcript) == 3 and chat.transcript[0] == "> Who is there?\nanswer 1"


def test_a_dialogue_that_the_template_refuses_is_not_kept(capsys):
    writer = Writer({"chat_template": ChatTemplate("{{ raise_exception('never') }}").to_dict()})
    chat = Chat(writer, SampleConfig(seed=1))
    assert chat.handle("Hello")
    assert "never" in capsys.readouterr().out and chat.conversation.messages == [] and writer.asked == []


def test_without_a_template_lines_are_openings(capsys):
    writer = Writer({})
    chat = Chat(writer, SampleConfig(seed=1))
    chat.handle("Once")
    assert writer.asked[0][0] == "Once" and chat.text == "Onceanswer 1"
