"""Data sets of Hugging Face: read from a folder of Parquet files or of `save_to_disk`, or from a hub; written as a folder with a data card."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dream_cli.errors import RowError, UsageError, with_extra
from dream_cli.records.record import Json
from dream_cli.records.visible import amount

HUB = "hf://datasets/"
# The file of the rows in a folder that `dream convert` writes.
DATA = "data/train.parquet"
_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# A split's files are named SPLIT.parquet, SPLIT-00000-of-00002.parquet or SPLIT/anything.parquet.
_SHARD = re.compile(r"[-_.]\d+(-of-\d+)?$")
_PLACES = ("data", "default", "")
# The files that mark a folder of `save_to_disk`.
SAVED = ("dataset_dict.json", "state.json")


def open_dataset(source: str, split: str | None) -> Iterator[Json | RowError]:
    """Return the rows of a data set's folder; raise UsageError where it is not one, or has several splits and `split` is None."""
    folder = Path(source)
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        return _saved(folder / chosen_split(names, split, source))
    if (folder / "state.json").is_file():
        return _saved(folder)
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        files.setdefault(split_of(str(path.relative_to(folder))), []).append(path)
    if not files:
        raise UsageError(f"{source} is a folder without .parquet files and without the state.json of save_to_disk; name a file in it")
    # Imports Arrow, which a conversion of JSON does not need.
    from dream_cli.records.parquet import open_rows

    return (row for path in files[chosen_split(list(files), split, source)] for row in open_rows(str(path)))


def split_of(file: str, by_folder: bool = False) -> str:
    """Return the split that a file of a data set belongs to, by its folder or its name."""
    parent = Path(file).parent.name
    return parent if by_folder or parent not in _PLACES else _SHARD.sub("", Path(file).stem)


def chosen_split(names: list[str], split: str | None, source: str) -> str:
    """Return the split to read: the only one, or `split`; raise UsageError where that is not one of `names`."""
    if split is None and len(names) == 1:
        return names[0]
    if split not in names:
        problem = "name one with --split" if split is None else f"there is no {split!r}"
        raise UsageError(f"{source} has the splits {', '.join(names)}; {problem}")
    return split


def _saved(folder: Path) -> Iterator[Json]:
    """Yield the rows of a folder written by `save_to_disk`: Arrow streams, named in state.json."""
    import pyarrow as pa

    from dream_cli.records.parquet import to_json

    for file in json.loads((folder / "state.json").read_text())["_data_files"]:
        with pa.memory_map(str(folder / file["filename"])) as mapped, pa.ipc.open_stream(mapped) as batches:
            for batch in batches:
                # A batch holds a thousand rows; 16 at a time keep memory small where they hold images.
                for at in range(0, batch.num_rows, 16):
                    yield from map(to_json, batch.slice(at, 16).to_pylist())


def open_hub(name: str, split: str | None) -> Iterator[Json]:
    """Return the rows of a data set on a hub, read lazily; raise UsageError where it cannot be read."""
    os.environ |= _QUIET
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError:
        raise UsageError(f"to read from a hub, datasets must be installed; {with_extra('hub')}") from None
    disable_progress_bars()
    try:
        splits = load_dataset(name.removeprefix(HUB), streaming=True)
    except Exception as error:  # noqa: BLE001 - a hub client raises many kinds of errors; the message names the kind
        raise UsageError(f"{name} cannot be read from the hub ({type(error).__name__}: {str(error).splitlines()[0]})") from None
    rows = splits[chosen_split(list(splits), split, name)].decode(False)
    from dream_cli.records.parquet import to_json

    return map(to_json, rows)


def upload(folder: str, name: str) -> str:
    """Upload a data set's folder to a hub, as a private data set if it is new, and return its address."""
    os.environ |= _QUIET
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UsageError(f"to write to a hub, huggingface_hub must be installed; {with_extra('hub')}") from None
    api = HfApi()
    try:
        address = api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder)
    except Exception as error:  # noqa: BLE001 - as above
        raise UsageError(
            f"{folder} is written, but not uploaded to {name} ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from None
    return str(address)


def write_card(folder: str, dialect: str) -> None:
    """Write the data card of a folder: the dialect, the number of rows and the columns."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(os.path.join(folder, DATA))
    size = next(label for limit, label in _SIZES if metadata.num_rows < limit)
    columns = "\n".join(f"| `{field.name}` | `{field.type}` |" for field in metadata.schema.to_arrow_schema())
    name = os.path.basename(os.path.realpath(folder))
    Path(folder, "README.md").write_text(
        _CARD.format(path=DATA, size=size, name=name, rows=amount(metadata.num_rows, "row"), dialect=dialect, columns=columns)
    )


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (float("inf"), "n>1M"))
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: {path}
size_categories:
- {size}
tags:
- multimodal-safety
---

# {name}

{rows} in the form `{dialect}`, made by `dream convert`.
They may show and quote harmful content: they are for training and evaluating models that recognise it.

| column | type |
|---|---|
{columns}
"""
