"""Accept or reject: guesses of a quick model become tokens of a slow one, and the slow one's distribution stays exactly as it was.

    accept the guess t with probability min(1, p(t) / q(t)); else draw from norm(max(0, p - q))

p is the target's distribution, q the draft's, from which t was drawn (Leviathan et al. 2023, algorithm 1; Chen et al. 2023,
algorithm 2). Why this is exact: a token x comes out accepted with probability q(x) min(1, p(x)/q(x)) = min(p(x), q(x)). What is
missing to p(x) is max(0, p(x) - q(x)), and summed over x that is just the probability of a rejection: so a draw from it, normalised,
fills every gap to the brim. A poor draft costs time, never quality.

Left out: models and texts (`speculative.py`). Read before: `strategies.py` (where p and q come from).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def residual(target: Tensor, draft: Tensor) -> Tensor:
    """norm(max(0, target - draft)), what a token is drawn from after a rejection: (…, vocab) probabilities to the same.

    >>> residual(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.7, 0.2, 0.1])).tolist()
    [0.0, 0.5, 0.5]

    Where the draft is nowhere too low the two are equal and nothing is ever rejected, but for rounding: then it is `target`.
    """
    missing = (target - draft).clamp(min=0)
    whole = missing.sum(-1, keepdim=True)  # (…, 1), the probability of a rejection
    return torch.where(whole > 0, missing / whole, target)


def accept(draft: Tensor | Sequence[Tensor], target: Tensor, guesses: Sequence[int], uniforms: Sequence[float]) -> tuple[int, Tensor]:
    """How many of the guesses are accepted, and the distribution (vocab,) of the token that follows them.

    `draft` (k, vocab) holds what each guess was drawn from, `target` (k + 1, vocab) what it should have been drawn from, and in its
    last row what follows when all guesses are right. `uniforms` are k numbers in [0, 1). The first rejection ends it: the guesses
    after it were made for another text. Draw the next token from the result, and k guesses give 1 to k + 1 tokens.

    >>> q, p = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    >>> accept(q, p, [0], [0.7])                    # 0.7 is below 0.5 / 0.7 = 0.714
    (1, tensor([0., 0., 1.]))
    >>> accept(q, p, [0], [0.8])[0]
    0
    """
    for place, guess in enumerate(guesses):
        p, q = target[place], draft[place]
        if uniforms[place] * float(q[guess]) >= float(p[guess]):  # u ≥ p / q, without dividing
            return place, residual(p, q)
    return len(guesses), target[len(guesses)]


def overlap(target: Tensor, draft: Tensor) -> Tensor:
    """The probability that a guess is accepted, Σ min(p, q): (…, vocab) to (…) (Leviathan et al. 2023, theorem 3.5)."""
    return torch.minimum(target, draft).sum(-1)


def expected_tokens(rate: float, guesses: int) -> float:
    """Tokens that a pass of the target gives, where each guess is accepted with probability `rate`, whatever came before.

    1 + rate + … + rate^k = (1 - rate^(k+1)) / (1 - rate) (Leviathan et al. 2023, equation 1).

    >>> expected_tokens(0.5, 2)
    1.75
    """
    return sum(rate**place for place in range(guesses + 1))


def expected_speedup(rate: float, guesses: int, cost: float) -> float:
    """How many times faster than one token a pass; `cost` is the time of a guess over that of a pass (theorem 3.8).

    It takes for granted that reading k + 1 tokens costs the target no more than reading one.

    >>> round(expected_speedup(0.8, 4, 0.1), 2)
    2.4
    """
    return expected_tokens(rate, guesses) / (1 + guesses * cost)


if __name__ == "__main__":
    p = torch.tensor([[0.5, 0.3, 0.2]] * 2, dtype=torch.float64)
    q = torch.tensor([[0.7, 0.1, 0.2]], dtype=torch.float64)
    print("target", p[0].tolist(), "draft", q[0].tolist(), f"accepted {overlap(p[0], q[0]):.2f}, else from", residual(p[0], q[0]).tolist())
    n, counts = 20_000, [0, 0, 0]
    u = torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    guesses = torch.multinomial(q[0], n, replacement=True, generator=torch.Generator().manual_seed(1)).tolist()
    for guess, (judge, height) in zip(guesses, u, strict=True):
        accepted, rest = accept(q, p, [guess], [judge])
        counts[guess if accepted else int((rest.cumsum(-1) <= height).sum().clamp(max=2))] += 1
    print(f"{n:,} guesses of the draft, judged: the tokens came out as", [round(count / n, 3) for count in counts])
    for rate in (0.5, 0.7, 0.9):
        print(f"rate {rate}: 4 guesses give {expected_tokens(rate, 4):.2f} tokens a pass, at a cost of 0.1 each", end=" ")
        print(f"{expected_speedup(rate, 4, 0.1):.2f} times the speed")
