"""`tiny hardware`: what this machine is, and how large a model suits it. Read before: hardware.py of the package."""

import json
from dataclasses import asdict, dataclass

from tiny_transformer.cli.screen import Screen
from tiny_transformer.cli.settings import parse

DESCRIPTION = "What is here (cores, memory, GPU, bfloat16), how large a model suits it, and why. tiny train uses it when no size is given."


@dataclass(frozen=True, kw_only=True)
class HardwareSettings:
    """What `tiny hardware` accepts."""

    json: bool = False
    """Print machine and advice as JSON."""


def main(argv: list[str]) -> int:
    """Look, advise, say why."""
    settings = parse(HardwareSettings, argv, command="hardware", description=DESCRIPTION)
    from tiny_transformer.hardware import detect, recommend

    machine = detect()
    advice = recommend(machine)
    if settings.json:
        content = {"hardware": asdict(machine), "model": advice.config.to_dict(), "training": asdict(advice.training), "why": advice.why}
        print(json.dumps(content))
        return 0
    screen, model = Screen(), advice.config
    memory = "" if machine.gpu_memory_gb is None else f" with {machine.gpu_memory_gb:.0f} GB"
    screen.say(f"cores     {machine.cores}")
    screen.say(f"memory    {machine.memory_gb:.1f} GB")
    screen.say(f"GPU       {machine.gpu or 'none'}{memory}")
    screen.say(f"bfloat16  {'yes' if machine.bfloat16 else 'no'}")
    screen.say(f"advice    {model.n_layers} layers, {model.n_heads} heads, {model.d_model} wide, context {model.max_seq_len}, batches of "
               f"{advice.training.batch_size}: {model.n_parameters / 1e6:.2f} M parameters", style="bold")
    screen.say(f"because   {advice.why}")
    return 0
