"""From the names that the user gave to the items, with what is odd about the files said once and by name."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dream_cli.benchmarks.benchmark import Benchmark, Item
from dream_cli.benchmarks.files import Folder, open_source, read_rows
from dream_cli.benchmarks.registry import TABLE, every, get
from dream_cli.benchmarks.tables import Source
from dream_cli.errors import InvalidRecord, UsageError
from dream_cli.records.record import Record
from dream_cli.records.streams import read_records

SUITE = "suite"


def tell(message: str) -> None:
    """Say one line on stderr."""
    sys.stderr.write(f"dream: {message}\n")


def is_name(word: str) -> bool:
    """Whether a word names a benchmark (or all of them), with or without a subset."""
    return _spelt(word).partition(":")[0] in (*TABLE, SUITE)


def named(words: Sequence[str]) -> bool:
    """Whether the words name benchmarks, not files; raise UsageError for a mixture."""
    found = [is_name(word) for word in words]
    if any(found) and not all(found):
        other = next(word for word, known in zip(words, found, strict=True) if not known)
        raise UsageError(f"{other!r} is no benchmark; run benchmarks and score files in two commands")
    return any(found)


def read_items(
    words: Sequence[str], data: str | None = None, image_root: Path | None = None, limit: int | None = None, quiet: bool = False
) -> tuple[list[Record], int]:
    """Return the items of benchmarks, or those in files (stdin for no word), and how many lines could not be read; those are told.

    Raises UsageError for files that are not there or not the benchmark's, and for rows that are not items of a benchmark.
    """
    if named(words):
        return load(words, data, limit, (lambda _: None) if quiet else tell), 0
    return _read_files(words, image_root, limit)


def load(words: Sequence[str], data: str | None, limit: int | None = None, say: Callable[[str], None] = tell) -> list[Record]:
    """Return the items that NAME, NAME:SUBSET and `suite` stand for, at most `limit` of each subset.

    What is odd but no reason to stop is told to `say`. Raises UsageError where a benchmark's files are not under `data`.
    """
    found: list[Record] = []
    for word in map(_spelt, words):
        name, _, subset = word.partition(":")
        found += _suite(data, limit, say) if name == SUITE else _items(get(name), data, subset, limit, say)
    return found


def _read_files(sources: Sequence[str], image_root: Path | None, limit: int | None) -> tuple[list[Record], int]:
    rows = [row for source in sources or ["-"] for row in read_records(_file(source), image_root=image_root, limit=limit)]
    items = [row for row in rows if row.error is None or "benchmark" in row.extra]
    for row in rows:
        if row.error is not None and "benchmark" not in row.extra:
            tell(row.error.message)
    try:
        for row in items:
            get(Item.of(row).name).subset(Item.of(row))
    except InvalidRecord as error:
        raise UsageError(str(error)) from None
    if not items:
        raise UsageError(f"no items of a benchmark in {', '.join(sources) or 'stdin'}")
    return items, len(rows) - len(items)


def _file(word: str) -> str:
    """Return a word that can be a file of items; raise UsageError, with what was probably meant, for one that cannot."""
    if word != "-" and "." not in word and not os.path.exists(word):
        get(word)
    owner = owner_of(Path(word)) if word.lower().endswith((".json", ".csv")) and os.path.isfile(word) else None
    if owner:
        raise UsageError(f"{word} is an official file of {owner.title}; answer and judge it with dream eval {owner.name} --data {word}")
    return word


def owner_of(path: Path) -> Benchmark | None:
    """Return the benchmark that has a table of this form; None where none has, or where the file is no table."""
    try:
        first = next(iter(read_rows(path)), None)
    except UsageError:
        return None
    owners = (benchmark for benchmark in every() for table in benchmark.tables if first is not None and table.fits(first))
    return next(owners, None)


def _spelt(word: str) -> str:
    name, colon, subset = word.partition(":")
    return name.lower().replace("-", "_") + colon + subset


def _suite(data: str | None, limit: int | None, say: Callable[[str], None]) -> list[Record]:
    whole = [benchmark for benchmark in every() if benchmark.tables and not benchmark.variant]
    present = [b for b in whole if any(map(_source(b, data).has, b.tables))]
    absent = ", ".join(b.name for b in whole if b not in present)
    if not present:
        raise UsageError(f"--data {data} holds no file of a benchmark; give each a folder: {absent}")
    if absent:
        say(f"not under {data}, so not in the suite: {absent}")
    found: list[Record] = []
    for benchmark in present:
        try:
            found += _items(benchmark, data, "", limit, say)
        except UsageError as error:
            # A suite is what can be run of what is there; alone, the benchmark would stop with this.
            say(f"left out of the suite: {error}")
    if not found:
        raise UsageError(f"--data {data} holds no benchmark that can be run")
    return found


def _source(benchmark: Benchmark, data: str | None) -> Source:
    if not benchmark.tables:
        return Folder(Path(), "")
    if data is None:
        raise UsageError(f"{benchmark.title} needs its official files; name their folder with --data DIR (or hf://NAME)")
    return open_source(data, benchmark.name)


def _items(benchmark: Benchmark, data: str | None, subset: str, limit: int | None, say: Callable[[str], None]) -> list[Record]:
    if subset and subset not in benchmark.subsets:
        raise UsageError(f"{benchmark.title} has no subset {subset!r}; there are {', '.join(benchmark.subsets)}")
    source = _source(benchmark, data)
    loaded = [record for record in _loaded(benchmark, source) if not subset or Item.of(record).subset == subset]
    for difference in counted(benchmark, loaded):
        say(difference)
    _check_images(benchmark, source, say)
    return list(_limited(_named_apart(loaded, benchmark, say), limit))


def _loaded(benchmark: Benchmark, source: Source) -> list[Record]:
    try:
        return benchmark.load(source)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{source.opened} has a row that is not as {benchmark.title} was published ({what}); fetch the file anew"
        ) from None


def _limited(records: Sequence[Record], limit: int | None) -> Iterator[Record]:
    seen: Counter[str] = Counter()
    for record in records:
        subset = Item.of(record).subset
        seen[subset] += 1
        if limit is None or seen[subset] <= limit:
            yield record


def _named_apart(records: Sequence[Record], benchmark: Benchmark, say: Callable[[str], None]) -> list[Record]:
    """Give items that share an id one of their own, `ID#2`: some published files have an item twice."""
    seen: Counter[str] = Counter()
    found = []
    for record in records:
        seen[str(record.id)] += 1
        n = seen[str(record.id)]
        item = record.extra["benchmark"]
        twin = {"benchmark": item | {"item": f"{item['item']}#{n}"}}
        found.append(record if n == 1 else replace(record, id=f"{record.id}#{n}", extra=dict(record.extra) | twin))
    twice = [key for key, n in seen.items() if n > 1]
    if twice:
        say(f"{benchmark.title}: {len(twice)} ids stand more than once ({', '.join(twice[:3])}); the later ones get #2, #3 ...")
    return found


def _check_images(benchmark: Benchmark, source: Source, say: Callable[[str], None]) -> None:
    missing = list(dict.fromkeys(source.missing))
    if missing and len(source.missing) == source.asked:
        raise UsageError(
            f"{source.place}: none of the images of {benchmark.title} is there (the first is {missing[0]}); "
            "put its folder of images, or the zip, beside the file"
        )
    if missing:
        say(
            f"{benchmark.title}: {len(source.missing)} of {source.asked} images are missing: {', '.join(missing[:5])}; those rows get an error"
        )


def counted(benchmark: Benchmark, records: Sequence[Record]) -> Iterator[str]:
    """Yield how the items differ in number from the published ones, by subset and topic."""
    items = [Item.of(record) for record in records]
    for name in {item.subset: None for item in items}:
        topics = Counter(item.topic for item in items if item.subset == name)
        published = benchmark.subsets[name].topics if name in benchmark.subsets else {}
        off = [f"{topic or 'items'} {topics[topic]} of {n}" for topic, n in published.items() if topics[topic] != n]
        off += [f"{topic} {n}, a topic that was not published" for topic, n in topics.items() if topic not in published]
        if off and published:
            of, few = f" {name}" if name else "", ", ".join(off[:6]) + (f" and {len(off) - 6} more topics" if len(off) > 6 else "")
            yield f"{benchmark.title}{of} has {sum(topics.values())} items, {sum(published.values())} were published: {few}"
