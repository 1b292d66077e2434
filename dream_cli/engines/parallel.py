"""Parallel calls of one record, which end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from dream_cli.errors import as_row_error

T = TypeVar("T")


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the calls in parallel and return their results in order; no call outlives this function.

    If one fails with a row error, the others still finish, so that a rerun finds their replies in the store; then the first error in
    order is raised. An error that stops the run cancels the others and is raised at once.
    """

    async def outcome(call: Coroutine[Any, Any, T]) -> T | Exception:
        try:
            return await call
        except Exception as error:  # noqa: BLE001 - raised below
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
