"""Loading of benchmarks by name, with one warning for each difference from the published files."""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dream_cli.benchmarks.benchmark import Benchmark, Item
from dream_cli.benchmarks.files import Folder, open_files, read_table
from dream_cli.benchmarks.own_data import own_items
from dream_cli.benchmarks.registry import every, get, is_known
from dream_cli.benchmarks.tables import OfficialFiles
from dream_cli.errors import InvalidRecord, UsageError
from dream_cli.formats.sources import read_records
from dream_cli.records.access import Access
from dream_cli.records.columns import DEFAULT_READING, Reading
from dream_cli.records.record import Record
from dream_cli.records.shards import expanded
from dream_cli.records.visible import amount, visible_line

SUITE = "suite"
# No official JSON or CSV is larger; a file is read whole to look for its fields.
LARGEST_TABLE = 64 * 1024 * 1024


def warn(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"dream: {visible_line(message)}\n")


def is_name(word: str) -> bool:
    """Whether a word names a benchmark (or all of them), with or without a subset."""
    name = _spelt(word).partition(":")[0]
    return name == SUITE or is_known(name)


def name_benchmarks(words: Sequence[str]) -> bool:
    """Whether the words name benchmarks, not files; raise UsageError for a mixture."""
    known = [is_name(word) for word in words]
    if any(known) and not all(known):
        other = words[known.index(False)]
        raise UsageError(f"{other!r} is not a benchmark; run benchmarks and score files in two commands")
    return any(known)


def read_items(
    words: Sequence[str],
    data: str | None = None,
    reading: Reading = DEFAULT_READING,
    limit: int | None = None,
    quiet: bool = False,
    harmful_column: str | None = None,
) -> tuple[list[Record], int]:
    """Return the items of benchmarks, or of files, folders, globs or URLs (stdin without words), and the number of unreadable rows.

    With `harmful_column`, records of files without a benchmark are items of own data, labelled by that column. Unreadable rows are
    reported on stderr. Raises UsageError for files that are missing or not the benchmark's, and for rows that are not items.
    """
    if name_benchmarks(words):
        shown = Access(max_pixels=reading.max_pixels)
        items = load(words, data, limit, (lambda _: None) if quiet else warn)
        return [replace(item, images=tuple(replace(image, access=shown) for image in item.images)) for item in items], 0
    files = [file for word in words or ["-"] for file in _item_files(word)]
    rows = [row for file in files for row in read_records(file, reading, limit)]
    for row in rows:
        if row.error is not None and "benchmark" not in row.extra:
            warn(f"{row.place}: came with an error: {row.error.message}" if row.came_with_error else row.error.message)
    items = [row for row in rows if row.error is None or "benchmark" in row.extra]
    if harmful_column is not None:
        items = own_items(items, harmful_column, warn)
    try:
        for row in items:
            get(Item.of(row).name).subset(Item.of(row))
    except InvalidRecord as error:
        raise UsageError(str(error)) from None
    if not items:
        raise UsageError(f"no items of a benchmark in {', '.join(words) or 'stdin'}")
    return items, len(rows) - len(items)


def load(words: Sequence[str], data: str | None, limit: int | None = None, report: Callable[[str], None] = warn) -> list[Record]:
    """Return the items of the words (NAME, NAME:SUBSET or `suite`), at most `limit` per subset.

    Differences from the published files that do not prevent a run go to `report`. Raises UsageError if a benchmark's files are not
    under `data`.
    """
    items: list[Record] = []
    for word in map(_spelt, words):
        name, _, subset = word.partition(":")
        items += _suite(data, limit, report) if name == SUITE else _items(get(name), data, subset=subset, limit=limit, report=report)
    return items


def _item_files(word: str) -> list[str]:
    """Return the files of items for a word; raise UsageError, with a similar name, if there are none."""
    if word != "-" and not word.endswith("/") and "." not in word and not os.path.exists(word):
        get(word)
    _refuse_official(word)
    files = expanded([word])
    for file in files:
        _refuse_official(file)
    return files


def _refuse_official(file: str) -> None:
    owner = owner_of(Path(file)) if file.lower().endswith((".json", ".csv")) and os.path.isfile(file) else None
    if owner:
        raise UsageError(f"{file} is an official file of {owner.title}; answer and judge it with dream eval {owner.name} --data {file}")


def owner_of(path: Path) -> Benchmark | None:
    """Return the benchmark with a table of these fields; None if there is none, or the file is not a table or larger than official ones."""
    try:
        if path.stat().st_size > LARGEST_TABLE:
            return None
        first = next(iter(read_table(path)), None)
    except UsageError:
        return None
    tables = [(benchmark, table) for benchmark in every() for table in benchmark.tables if not table.on_hub_alone]
    owners = (benchmark for benchmark, table in tables if first is not None and table.fits(first))
    return next(owners, None)


def _spelt(word: str) -> str:
    name, colon, subset = word.partition(":")
    return name.lower().replace("-", "_") + colon + subset


def _suite(data: str | None, limit: int | None, report: Callable[[str], None]) -> list[Record]:
    whole = [benchmark for benchmark in every() if benchmark.tables and not benchmark.variant]
    present = [b for b in whole if any(map(_source(b, data).has, b.tables))]
    absent = ", ".join(b.name for b in whole if b not in present)
    if not present:
        raise UsageError(f"--data {data} has no file of a benchmark; give each a folder: {absent}")
    if absent:
        report(f"not under {data}, so not in the suite: {absent}")
    items: list[Record] = []
    for benchmark in present:
        try:
            items += _items(benchmark, data, subset="", limit=limit, report=report)
        except UsageError as error:
            # A suite runs every benchmark that it can; for a single named benchmark this error stops the command.
            report(f"left out of the suite: {error}")
    if not items:
        raise UsageError(f"--data {data} has no benchmark that can be run")
    return items


def _source(benchmark: Benchmark, data: str | None) -> OfficialFiles:
    if not benchmark.tables:
        return Folder(Path(), "")
    if data is None:
        raise UsageError(f"{benchmark.title} needs its official files; name their folder with --data DIR (or hf://NAME)")
    return open_files(data, benchmark.name)


def _items(benchmark: Benchmark, data: str | None, subset: str, limit: int | None, report: Callable[[str], None]) -> list[Record]:
    if subset and subset not in benchmark.subsets:
        raise UsageError(f"{benchmark.title} has no subset {subset!r}; there are {', '.join(benchmark.subsets)}")
    source = _source(benchmark, data)
    try:
        loaded = benchmark.load(source) if limit is None or benchmark.first is None else benchmark.first(limit)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # A loader reads the published fields without checks, so these errors mean a row of another form.
        what = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{source.opened} has a row that is not as {benchmark.title} was published ({what}); download the file again"
        ) from None
    if subset:
        loaded = _of_subset(benchmark, loaded, subset, source)
    for difference in counted(benchmark, loaded):
        report(difference)
    _report_namesakes(benchmark, source, report)
    _check_images(benchmark, loaded, source, report)
    records = _with_own_ids(loaded, benchmark, report)
    return records if limit is None else drawn(records, limit)


def _of_subset(benchmark: Benchmark, loaded: Sequence[Record], subset: str, source: OfficialFiles) -> list[Record]:
    """Return the items of a subset, selected from the whole set if necessary; raise UsageError if there are none."""
    own = [record for record in loaded if Item.of(record).subset == subset]
    part = benchmark.narrowed.get(subset)
    if not own and part is not None:
        own = [narrowed for record in loaded if (narrowed := part(record)) is not None]
    if not own:
        there = ", ".join(dict.fromkeys(Item.of(record).subset for record in loaded)) or "no item at all"
        raise UsageError(f"{source.place}: {benchmark.title} has no item of the subset {subset} there; {source.opened.name} has {there}")
    return own


def drawn(records: Sequence[Record], limit: int) -> list[Record]:
    """Return at most `limit` items per subset, in their order: the first of each topic, then the second of each topic, and so on."""
    rounds: Counter[tuple[str, str]] = Counter()
    turns: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for position, record in enumerate(records):
        item = Item.of(record)
        turns[item.subset].append((rounds[item.subset, item.topic], position))
        rounds[item.subset, item.topic] += 1
    kept = sorted(position for positions in turns.values() for _, position in sorted(positions)[:limit])
    return [records[position] for position in kept]


def _with_own_ids(records: Sequence[Record], benchmark: Benchmark, report: Callable[[str], None]) -> list[Record]:
    """Return the records with unique ids per model, `ID#2` for a repeated one: some published files have an item twice."""
    seen: Counter[tuple[str, str]] = Counter()
    result = []
    for record in records:
        key = str(record.id), _model(record)
        seen[key] += 1
        n = seen[key]
        item = Item.of(record)
        twin = replace(item, item=f"{item.item}#{n}").annotated(replace(record, id=f"{record.id}#{n}"))
        result.append(record if n == 1 else twin)
    twice = list(dict.fromkeys(key for (key, _), n in seen.items() if n > 1))
    if twice:
        report(f"{benchmark.title}: {len(twice)} ids occur more than once ({', '.join(twice[:3])}); the later ones get #2, #3 ...")
    return result


def _report_namesakes(benchmark: Benchmark, source: OfficialFiles, report: Callable[[str], None]) -> None:
    """Report the tables that were read although another folder has a different one of the same name, such as a translation."""
    for opened, other in list(source.namesakes.items())[:1]:
        files = amount(len(source.namesakes), "file", "occur")
        report(f"{benchmark.title}: {files} twice with different content: {opened} was read, {other} was not (--data names the folder)")


def _check_images(benchmark: Benchmark, loaded: Sequence[Record], source: OfficialFiles, report: Callable[[str], None]) -> None:
    paths = [image.path or "" for record in loaded for image in record.images]
    missing = [source.missing[path] for path in paths if path in source.missing]
    if missing and len(missing) == len(paths):
        raise UsageError(
            f"{source.place}: none of the images of {benchmark.title} exists (the first is {missing[0]}); "
            "put its folder of images, or the zip, beside the file"
        )
    if missing:
        first = ", ".join(list(dict.fromkeys(missing))[:5])
        report(f"{benchmark.title}: {len(missing)} of {amount(len(paths), 'image', 'are')} missing: {first}; those rows get an error")


def counted(benchmark: Benchmark, records: Sequence[Record]) -> Iterator[str]:
    """Yield one sentence per subset whose number of items differs from the published one, with its topics if they were published.

    In files of responses, the items are counted per model.
    """
    models = {_model(record): None for record in records}
    differences = [one for model in models for one in _counted(benchmark, [r for r in records if _model(r) == model])]
    yield from dict.fromkeys(differences)


def _model(record: Record) -> str:
    return (record.responses[0].model or "") if record.responses else ""


def _counted(benchmark: Benchmark, records: Sequence[Record]) -> Iterator[str]:
    items = [Item.of(record) for record in records]
    if benchmark.size not in (None, len(items)):
        yield f"{benchmark.title} has {amount(len(items), 'item')}, {benchmark.size:,} were published"
    for name in {item.subset: None for item in items}:
        topics = Counter(item.topic for item in items if item.subset == name)
        subset = benchmark.subsets.get(name)
        published = subset.topics if subset else {}
        of = f" {name}" if name else ""
        if subset and subset.size not in (None, topics.total()):
            yield f"{benchmark.title}{of} has {amount(topics.total(), 'item')}, {subset.size:,} were published"
        if set(topics) == {""} and topics.total() == sum(published.values()):
            continue  # these items came without their topics
        off = [f"{topic or 'items'} {topics[topic]} of {n}" for topic, n in published.items() if topics[topic] != n]
        off += [f"{topic} {n}, a topic that was not published" for topic, n in topics.items() if topic not in published]
        if off and published:
            few = ", ".join(off[:6]) + (f" and {len(off) - 6} more topics" if len(off) > 6 else "")
            yield f"{benchmark.title}{of} has {amount(topics.total(), 'item')}, {sum(published.values()):,} were published: {few}"
