"""The published rates of the field, as counts with intervals."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import CHECKOUT


def test_published_rates_are_counts_but_for_three() -> None:
    script = CHECKOUT / "examples" / "benchmarks" / "published_rates.py"
    out = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True).stdout
    lines = out.splitlines()
    assert "   39.52  66/167 [32.4, 47.1]" in lines
    assert "   23.35  39/167 [17.6, 30.3]" in lines
    assert [line.split()[0] for line in lines if "no k/" in line] == ["18.96", "20.78", "92.90"]
    assert "79 of 82 rates are counts" in lines
    assert lines[-2].endswith("+16.2 [+6.2, +25.7], told apart")
    assert lines[-1].endswith("-7.2 [-17.6, +3.4], not told apart")
