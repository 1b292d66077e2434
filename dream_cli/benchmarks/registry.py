"""The table of benchmarks: the only place that names them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib import import_module

from dream_cli.benchmarks.benchmark import Benchmark
from dream_cli.errors import UsageError

# Name -> (file, name in the file). The order is that of a suite: each set of risks beside its harmless partner.
TABLE = {
    "figstep": ("figstep", "FIGSTEP"),
    "figstep_benign": ("figstep_benign", "FIGSTEP_BENIGN"),
    "siuo": ("siuo", "SIUO"),
    "siuo_mcqa": ("siuo_mcqa", "SIUO_MCQA"),
    "vlguard": ("vlguard", "VLGUARD"),
    "mm_safetybench": ("mm_safetybench", "MM_SAFETYBENCH"),
    "mm_safetybench_tiny": ("mm_safetybench", "MM_SAFETYBENCH_TINY"),
    "mossbench": ("mossbench", "MOSSBENCH"),
    "xstest": ("xstest", "XSTEST"),
    "xstest_blank": ("xstest", "XSTEST_BLANK"),
    "nano_world": ("nano_world", "NANO_WORLD"),
}
# Known in items, and not run by name: their items are in the user's files.
ITEMS_ALONE = {"own": ("own_data", "OWN")}


def get(name: str) -> Benchmark:
    """Return a benchmark by its name; raise UsageError, with the name that was probably meant, where there is none."""
    place = TABLE.get(name) or ITEMS_ALONE.get(name)
    if place is None:
        close = difflib.get_close_matches(name, TABLE, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(TABLE)}, and suite for all of them"
        raise UsageError(f"no benchmark {name!r} (nor a file of that name); {meant}")
    return _loaded(*place)


def every() -> Iterator[Benchmark]:
    """Yield all benchmarks in the order of a suite."""
    return (_loaded(*place) for place in TABLE.values())


def _loaded(file: str, constant: str) -> Benchmark:
    benchmark = getattr(import_module(f"dream_cli.benchmarks.{file}"), constant)
    assert isinstance(benchmark, Benchmark)
    return benchmark
