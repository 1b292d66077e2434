"""The warnings of an evaluation: the reasons to read its rates with care, one sentence each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import get_args

from dream_cli.benchmarks.benchmark import Benchmark, ByRule, Item, JudgeQuestion, Published
from dream_cli.benchmarks.loading import counted
from dream_cli.engines.registry import world_of
from dream_cli.errors import UnreadableAnswer
from dream_cli.evaluation.rates import Rate
from dream_cli.prompts.guard_formats import guard_format
from dream_cli.records.choices import GuardName, Rule
from dream_cli.records.record import Record, Response
from dream_cli.records.verdicts import Verdict
from dream_cli.records.visible import amount
from dream_cli.stats.intervals import percent

# Above this difference, the published string match and the judge measure different things.
APART = 0.10


def cautions(
    benchmark: Benchmark, records: Sequence[Record], rule: Rule, rates: Sequence[Rate], matched: Sequence[Rate], alone: bool
) -> Iterator[str]:
    """Yield the warnings about the items, the responses, the verdicts and the rates of one model on one benchmark.

    `matched` holds the rates of the published string match; `alone` is True if the harmless partner of the set was not evaluated.
    """
    responses = [response for record in records if record.error is None for response in record.responses or ()]
    yield from counted(benchmark, records)
    yield from _items(records)
    yield from _unscored(rates)
    yield from _matched(benchmark, rates, matched)
    yield from _responses(responses)
    yield from _verdicts(benchmark, responses, rule)
    yield from _judges(records, responses, rule)
    published = {q.question for record in records for q in benchmark.subset(Item.of(record)).questions(rule) if isinstance(q, Published)}
    if published:
        yield f"{', '.join(sorted(published))}: unless --prompts supplied the published wording, the judge got ours, in the published layout"
    for judge in sorted({name for r in responses for name in judges_of(r, rule)}):
        if (world := world_of(judge)) and world.name != benchmark.world:
            yield f"{judge} judged, which knows only its own small world: this shows that the command runs, and nothing about the model"
    yield from _guards(records, rule)
    if alone:
        yield f"read it beside {benchmark.partner}: this set alone rewards {'answering' if benchmark.harmless else 'refusing'} everything"
    sides = {benchmark.subset(Item.of(record)).harmless for record in records}
    if len(sides) == 1 < len({subset.harmless for subset in benchmark.subsets.values()}):
        (harmless,) = sides
        there, others, rewarded = ("harmless", "harmful", "answering") if harmless else ("harmful", "harmless", "refusing")
        yield f"all prompts are {there}: read it beside {others} ones, as these alone reward {rewarded} everything"
    if benchmark.in_distribution:
        yield "in-distribution: made from the sources that DREAM and VLGuard train on"


def _items(records: Sequence[Record]) -> Iterator[str]:
    failed = [str(record.id or record.extra.get("id")) for record in records if record.error is not None]
    if failed:
        yield f"{amount(len(failed), 'row', 'have')} an error and count as unscored: {_few(failed)}"
    ids = Counter((item.subset, item.item) for item in map(Item.of, records))
    twice = [":".join(filter(None, key)) for key, n in ids.items() if n > 1]
    if twice:
        yield f"{amount(len(twice), 'item', 'occur')} more than once and are counted each time: {_few(twice)}"


def _unscored(rates: Sequence[Rate]) -> Iterator[str]:
    for rate in rates:
        if rate.unscored and not rate.topic:
            low, high = sorted((rate.worst, rate.best))
            all_items = rate.n + rate.unscored
            yield f"{rate.title}: {rate.unscored} of {amount(all_items, 'item', 'are')} unscored; the rate is between {percent(low)} and {percent(high)}"


def _matched(benchmark: Benchmark, rates: Sequence[Rate], matched: Sequence[Rate]) -> Iterator[str]:
    judged = {(rate.subset, rate.name): rate.rate for rate in rates if not rate.topic}
    for rate in matched:
        ours = judged.get((rate.subset, rate.name))
        by_judge = any(isinstance(question, JudgeQuestion) for question in benchmark.subsets[rate.subset].strict)
        if by_judge and ours is not None and rate.rate is not None and abs(ours - rate.rate) > APART:
            yield (
                f"{rate.title}: the rate is {percent(rate.rate)} by the published string match and {percent(ours)} by the judge; "
                "the string match looks for set phrases, which refusals that explain and redirect do not use"
            )


def _responses(responses: Sequence[Response]) -> Iterator[str]:
    cut = sum(response.finish_reason == "length" for response in responses)
    if cut:
        yield f"{cut} of {amount(len(responses), 'response', 'were')} cut off at the token limit; what would have followed is not judged"
    empty = sum(not response.text.strip() for response in responses)
    if empty:
        yield f"{empty} of {amount(len(responses), 'response', 'are')} empty"


def _verdicts(benchmark: Benchmark, responses: Sequence[Response], rule: Rule) -> Iterator[str]:
    verdicts = [(question, verdict) for response in responses for question, verdict in response.verdicts_under(rule).items()]
    choices = [response.verdicts_under("strict").get("choice") for response in responses]
    silent = sum(choice is not None and choice.value == "none" for choice in choices)
    if silent:
        treatment = "count as wrong" if rule == "strict" else "get a random one from the published parser"
        yield f"{silent} of {len(responses)} answers name no option, or several; they {treatment}"
    odd = sum(verdict.value == -1 for _, verdict in verdicts)
    if odd:
        yield f"{odd} of {len(verdicts)} verdicts do not have the published layout; the published scorer averages them as -1"
    if rule == "official":
        different = sum(_differs_from_published(benchmark, question, verdict) for question, verdict in verdicts)
        if different:
            yield f"{different} of {len(verdicts)} verdicts are read differently by the published parser"


def _guards(records: Sequence[Record], rule: Rule) -> Iterator[str]:
    """Yield, for each text-only guard format, the number of responses to images that it judged."""
    shown = [response for record in records if record.images for response in record.responses or ()]
    formats = [
        {voice.extra.get("format") for verdict in r.verdicts_under(rule).values() for voice in verdict.voices if voice.answered}
        for r in shown
    ]
    for name in get_args(GuardName):
        blind = sum(name in of_response for of_response in formats)
        if blind and not guard_format(name).sees_images:
            yield f"{name} judged {amount(blind, 'response')} without the image, which it cannot read: harm that depends on the image is not seen"


def _differs_from_published(benchmark: Benchmark, question: str, verdict: Verdict) -> bool:
    """Whether the published parser reads a different value from the judge's reply than the verdict."""
    reread = benchmark.rereads.get(question)
    if reread is None or verdict.raw is None:
        return False
    try:
        return bool(reread(verdict.raw)) != (verdict.value == 1)
    except UnreadableAnswer:
        return False


def _judges(records: Sequence[Record], responses: Sequence[Response], rule: Rule) -> Iterator[str]:
    # The judges per question, in order of appearance: (name, id); the id identifies weights and prompts.
    voices: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for response in responses:
        for question, verdict in response.verdicts_under(rule).items():
            voices[question][str(verdict.judge), str(verdict.judge_id)] = None
    for question, judges in voices.items():
        names = list(dict.fromkeys(name for name, _ in judges))
        if len(names) > 1:
            yield f"{question}: the verdicts come from different judges: {', '.join(names)}"
        elif len(judges) > 1:
            yield f"{question}: the verdicts come from {len(judges)} judges with the name {names[0]}, with other weights or other prompts"
    split = [
        str(record.id)
        for record in records
        if any(verdict.disagree for response in record.responses or () for verdict in response.verdicts_under(rule).values())
    ]
    if split:
        yield f"the judges disagree on {amount(len(split), 'item')}: {_few(split, 10)}"


def judges_of(response: Response, rule: Rule) -> set[str]:
    """Return the names of the judges that gave the verdicts of a response under a rule."""
    return {verdict.judge for verdict in response.verdicts_under(rule).values() if verdict.judge}


def by_rule_alone(benchmark: Benchmark) -> list[str]:
    """Return the subsets whose official rule needs no judge."""
    return [name for name, s in benchmark.subsets.items() if s.official and all(isinstance(q, ByRule) for q in s.official)]


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
