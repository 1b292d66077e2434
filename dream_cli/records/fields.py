"""The typed fields of a JSON object; a value of the wrong type raises InvalidRecord, whose message names its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream_cli.errors import InvalidRecord


def rest_of(raw: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the fields that are not in `names`, and those that are null: they are written back unchanged."""
    return {name: value for name, value in raw.items() if name not in names or value is None}


def with_rest(known: dict[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields and after them the rest; a known value takes precedence over one of the same name."""
    return known | {name: value for name, value in rest.items() if name not in known}


def items(raw: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return a list, None where it is absent."""
    value = raw.get(name)
    if value is None or isinstance(value, list):
        return value
    if isinstance(value, str) and value[:1] == "[":
        raise InvalidRecord(f"'{name}' is a text that is neither a JSON nor a Python list; write it as JSON")
    raise InvalidRecord(f"'{name}' is {kind(value)}, not a list")


def text(raw: Mapping[str, Any], name: str) -> str | None:
    """Return a string, None where it is absent."""
    value = raw.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidRecord(f"'{name}' is {kind(value)}, not a string")


def number(raw: Mapping[str, Any], name: str, where: str, top: float) -> float | None:
    """Return a number in 0..`top`, None where it is absent; true and false are not numbers."""
    value = raw.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidRecord(f"{where}.{name} is {kind(value)}, not a number")
    if not 0 <= value <= top:
        digits = str(value)
        raise InvalidRecord(f"{where}.{name} is {digits if len(digits) <= 20 else f'{digits[:20]}...'}, not in 0..{top:g}")
    return value


def mapping(raw: Any, where: str) -> Mapping[str, Any]:
    """Return an object unchanged; raise InvalidRecord for any other value."""
    if isinstance(raw, Mapping):
        return raw
    raise InvalidRecord(f"{where} is {kind(raw)}, not an object")


def kind(value: Any) -> str:
    """Return the name of a JSON value's type for a message."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")
