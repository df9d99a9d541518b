"""The whole journey behind three switches: train on Tiny Shakespeare, generate, talk to the model.

    python examples/shakespeare_demo.py --train --steps 2000
    python examples/shakespeare_demo.py --generate --checkpoint checkpoints/demo/demo_model.pt --prompt "ROMEO:"
    python examples/shakespeare_demo.py --interactive --checkpoint checkpoints/demo/demo_model.pt

Every other flag goes on to `tiny train --recipe quick`, `tiny generate` or `tiny chat`: add --help to a switch to see them.
"""

import sys

try:
    from tiny_transformer.cli.main import fail, main
except ModuleNotFoundError:
    sys.exit("examples/shakespeare_demo.py: the package is not installed. Run: pip install -e .")

COMMANDS = {
    "--train": ["train", "--recipe", "quick"],
    "--generate": ["generate", "--checkpoint", "checkpoints/demo/demo_model.pt"],
    "--interactive": ["chat", "--checkpoint", "checkpoints/demo/demo_model.pt"],
}


def demo(argv: list[str]) -> int:
    """Translate the switches into one `tiny` command; its exit code."""
    chosen = [switch for switch in COMMANDS if switch in argv]
    if not chosen and {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    if len(chosen) != 1:
        return fail("shakespeare_demo", f"got {' '.join(chosen) or 'no switch'}: exactly one is needed. Use one of {', '.join(COMMANDS)}")
    flags = [flag for flag in argv if flag != chosen[0]]
    if chosen == ["--train"]:
        flags = [flag.replace("--steps", "--max-steps", 1) if flag.split("=")[0] == "--steps" else flag for flag in flags]
    return main([*COMMANDS[chosen[0]], *flags])


if __name__ == "__main__":
    sys.exit(demo(sys.argv[1:]))
