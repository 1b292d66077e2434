"""The base class of the types of a record: immutable, created and compared in C, and read from JSON by msgspec.

A frozen dataclass takes ten times as long to create, which would be most of the time of a stage without a model.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from msgspec import Struct


@cache
def _dataclass_fields(of: type[Struct]) -> dict[str, Any]:
    twin: Any = dataclasses.make_dataclass(of.__name__, of.__struct_fields__)
    return dict(twin.__dataclass_fields__)


class _DataclassFields:
    def __get__(self, _: Struct | None, of: type[Struct]) -> dict[str, Any]:
        return _dataclass_fields(of)


class Frozen(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An immutable type with named fields, not tracked by the garbage collector because they form no cycles.

    `dataclasses.replace` accepts it; `msgspec.structs.replace` does the same in C.
    """

    __dataclass_fields__ = _DataclassFields()
