"""Disentangle, judge and reduce the risks of vision-language models: the nouns behind the `dream` commands.

From Python: `import dream_cli as dream`, see `dream_cli.api`.
"""

from __future__ import annotations

# As type checkers know it: until `typing` is imported a signal would print a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"
__all__ = ["AsyncModel", "Model", "StageError", "__version__", "open", "open_async", "pairs", "read", "write"]

if TYPE_CHECKING:
    from dream_cli.api import AsyncModel, Model, StageError, open, open_async, pairs, read, write


def __getattr__(name: str) -> Any:
    # The commands import this package first of all, and most of them need none of these.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dream_cli import api

    return getattr(api, name)
