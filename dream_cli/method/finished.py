"""Finished shards: outputs of an earlier run of the same stage, which are not made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dream_cli.errors import UsageError
from dream_cli.formats.sources import read_records
from dream_cli.records import remote
from dream_cli.records.record import Record
from dream_cli.records.shards import Shard

# What a stage adds to every row that has no error.
ADDED: Mapping[str, tuple[str, Callable[[Record], bool]]] = {
    "disentangle": ("observations", lambda record: record.observations is not None),
    "sample": ("responses", lambda record: bool(record.responses)),
    "judge": ("scores", lambda record: any(response.judgement is not None for response in record.responses or ())),
}


def unfinished(shards: Sequence[Shard], stage: str) -> list[Shard]:
    """Return the shards without an output; raise UsageError for a file there that the stage has not written.

    Only the first row is read; outputs behind a URL are not opened.
    """
    todo = []
    for shard in shards:
        if not shard.is_finished:
            todo.append(shard)
        elif not remote.is_url(shard.out):
            _check(shard.out, stage)
    return todo


def _check(path: str, stage: str) -> None:
    name, has_it = ADDED.get(stage, ("", lambda record: True))
    first = next(iter(read_records(path, limit=1)), None)
    if first is None or first.came_with_error or (first.error is None and has_it(first)):
        return
    lacking = "is not a record" if first.error is not None else f"has no {name}"
    raise UsageError(
        f"{path} is not an output of dream {stage}: its first row {lacking}, so it would be skipped as finished; "
        "name another folder with -o, or delete the file"
    )
