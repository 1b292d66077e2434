"""Calls of one record in parallel, which end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from dream_cli.errors import as_row_error

T = TypeVar("T")


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the calls in parallel and return their results in order; none of them runs any more when this ends.

    Where one fails for its record, the others go on to their end, as a rerun finds their replies in the store; then the first error in
    order is raised. What stops the run cancels the others and is raised at once.
    """

    async def outcome(call: Coroutine[Any, Any, T]) -> T | Exception:
        try:
            return await call
        except Exception as error:  # noqa: BLE001 - returned to be raised below
            as_row_error(error)
            return error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(call)) for call in calls]
    except ExceptionGroup as stops:
        raise stops.exceptions[0] from None
    results: list[T] = []
    for task in tasks:
        result = task.result()
        if isinstance(result, Exception):
            raise result
        results.append(result)
    return results
