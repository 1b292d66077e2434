"""The registry of benchmarks; no other module names them.

A plug-in of the group `dream.benchmarks` is a `Benchmark`; `--benchmark-file` reads one from a Python file for one run. Its name is in
lower case, with underscores.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from dream_cli.benchmarks.benchmark import Benchmark
from dream_cli.errors import UsageError
from dream_cli.records import plugins

# Name -> (module, name in the module). The order is that of a suite: each set of risks beside its harmless partner.
TABLE = {
    "figstep": ("figstep", "FIGSTEP"),
    "figstep_benign": ("figstep_benign", "FIGSTEP_BENIGN"),
    "siuo": ("siuo", "SIUO"),
    "siuo_mcqa": ("siuo_mcqa", "SIUO_MCQA"),
    "vlguard": ("vlguard", "VLGUARD"),
    "mm_safetybench": ("mm_safetybench", "MM_SAFETYBENCH"),
    "mm_safetybench_tiny": ("mm_safetybench", "MM_SAFETYBENCH_TINY"),
    "mossbench": ("mossbench", "MOSSBENCH"),
    "mssbench": ("mssbench", "MSSBENCH"),
    "holisafe": ("holisafe", "HOLISAFE"),
    "vlsbench": ("vlsbench", "VLSBENCH"),
    "msts": ("msts", "MSTS"),
    "spa_vl": ("spa_vl", "SPA_VL"),
    "jailbreakv_28k": ("jailbreakv_28k", "JAILBREAKV_28K"),
    "jailbreakv_28k_mini": ("jailbreakv_28k", "JAILBREAKV_28K_MINI"),
    "xstest": ("xstest", "XSTEST"),
    "xstest_blank": ("xstest", "XSTEST_BLANK"),
    "nano_world": ("nano_world", "NANO_WORLD"),
}
# Known in items but not run by name: their items are in the user's files.
ITEMS_ALONE = {"own": ("own_data", "OWN")}
_FROM_FILES: dict[str, Benchmark] = {}


def is_known(name: str) -> bool:
    """Whether a benchmark of that name can be run: built in, installed as a plug-in, or read from a file."""
    return name in TABLE or name in _FROM_FILES or name in plugins.names("benchmarks", (*TABLE, *ITEMS_ALONE))


def get(name: str) -> Benchmark:
    """Return a benchmark by its name; raise UsageError, with a similar name, if there is none."""
    entry = TABLE.get(name) or ITEMS_ALONE.get(name)
    if entry is not None:
        return _loaded(*entry)
    if name in _FROM_FILES:
        return _FROM_FILES[name]
    installed = plugins.names("benchmarks", (*TABLE, *ITEMS_ALONE))
    if name in installed:
        return _checked(plugins.load("benchmarks", name), f"the plug-in {name}")
    names = (*TABLE, *installed)
    close = difflib.get_close_matches(name, names, 1)
    meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}, and suite for all that are built in"
    raise UsageError(f"no benchmark {name!r} (nor a file of that name); {meant}")


def read_file(path: Path) -> Benchmark:
    """Run a Python file, register the benchmark that it defines, and return it; raise UsageError unless it defines exactly one."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"--benchmark-file: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own file may raise anything
        raise UsageError(f"--benchmark-file: {path} cannot be run: {type(error).__name__}: {error}") from error
    benchmarks = [value for value in vars(module).values() if isinstance(value, Benchmark)]
    if len(benchmarks) != 1 or benchmarks[0].name in (*TABLE, *ITEMS_ALONE):
        names = ", ".join(benchmark.name for benchmark in benchmarks) or "none"
        raise UsageError(f"--benchmark-file: {path} must define one benchmark with a name of its own; it defines {names}")
    _FROM_FILES[benchmarks[0].name] = benchmarks[0]
    return benchmarks[0]


def every() -> Iterator[Benchmark]:
    """Yield all built-in benchmarks in the order of a suite."""
    return (_loaded(*entry) for entry in TABLE.values())


def _loaded(file: str, constant: str) -> Benchmark:
    return _checked(getattr(import_module(f"dream_cli.benchmarks.{file}"), constant), file)


def _checked(value: Any, where: str) -> Benchmark:
    if not isinstance(value, Benchmark):
        raise UsageError(f"{where} is a {type(value).__name__}, not a dream_cli.benchmarks.benchmark.Benchmark")
    return value
