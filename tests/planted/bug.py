"""What a planted bug is."""

from typing import NamedTuple


class Bug(NamedTuple):
    """Replace `good` by `bad` in `file`; one of `tests` (names without test_ and .py) must then fail."""

    name: str
    file: str
    good: str
    bad: str
    tests: str
