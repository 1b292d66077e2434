"""A few inputs of each target of the fuzzer; `python -m tests.fuzz TARGET` checks more."""

from __future__ import annotations

import pytest

from tests.fuzz import TARGETS, run


@pytest.mark.parametrize("target", TARGETS)
def test_random_and_damaged_input_is_read_or_refused(target: str) -> None:
    run(target, inputs=30, number=0)
