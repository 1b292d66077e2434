"""Answer and judge the items of benchmarks: the policy first, then one judge after the other, so that one model is loaded at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from dream_cli.benchmarks.benchmark import Item
from dream_cli.benchmarks.loading import warn
from dream_cli.benchmarks.registry import get
from dream_cli.choices import Rule
from dream_cli.engines.address import public_address
from dream_cli.engines.api_keys import judge_key_names
from dream_cli.engines.costs import cost_report
from dream_cli.engines.dry import DryEngine
from dream_cli.engines.protocol import Engine, EngineSpec, Sampling, answer_of
from dream_cli.engines.registry import DEFAULT_MODEL, check_address, check_model
from dream_cli.errors import UsageError
from dream_cli.evaluation.judge_questions import Asker, by_rule, prompts_of, questions, to_ask
from dream_cli.evaluation.scorecards import require_rule
from dream_cli.method.chats import conversation
from dream_cli.method.model_prompts import with_model_prompts
from dream_cli.method.sampling import response_of
from dream_cli.method.stages import Run, Step, Tally, engine_for, mapped
from dream_cli.prompts.rendering import Prompts
from dream_cli.records.record import Record
from dream_cli.records.streams import open_writer
from dream_cli.records.verdicts import NOT_ASKED


@dataclass(frozen=True)
class Plan:
    """How to evaluate: who answers and who judges, under which rule, and what of the benchmark's sampling is changed (None: nothing)."""

    policy: EngineSpec
    judges: tuple[EngineSpec, ...]
    prompts: Prompts
    rule: Rule = "strict"
    trials: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Answerer:
    """Draws the responses of a record that has none, as its benchmark says."""

    engine: Engine
    plan: Plan

    async def __call__(self, record: Record) -> Record:
        """Return the record with one response for each trial."""
        if record.responses:
            return record
        sampling, trials = drawing(record, self.plan)
        drawn = await self.engine.generate(conversation(record.turns()[-1], record.images), sampling, range(trials))
        for completion in drawn:
            answer_of(completion)  # a rate over what a filter left would be a rate of something else
        return replace(record, responses=tuple(response_of(d, self.engine.model) for d in drawn))


def drawing(record: Record, plan: Plan) -> tuple[Sampling, int]:
    """Return how the responses to a record are drawn, and how many; several greedy ones would be one, so they get temperature 1."""
    benchmark = get(Item.of(record).name)
    trials = plan.trials or benchmark.trials
    temperature = benchmark.sampling.temperature if plan.temperature is None else plan.temperature
    if trials > 1 and temperature == 0:
        if plan.temperature is not None:
            raise UsageError(f"--temperature 0 draws the same response {trials} times; give another, or --trials 1")
        temperature = 1.0
    sampling = replace(
        benchmark.sampling, temperature=temperature, max_tokens=plan.max_tokens or benchmark.sampling.max_tokens, seed=plan.seed
    )
    return sampling, trials


def judges(names: Sequence[str] | None, urls: Sequence[str] | None, *, from_environment: bool) -> list[tuple[str | None, str | None]]:
    """Return (model, base URL) of each judge; one URL serves all judges, several serve one each.

    DREAM_JUDGE and DREAM_JUDGE_BASE_URL count only where a benchmark is run: scoring a file is free unless a flag says otherwise.
    """
    if from_environment:
        names = names or os.environ.get("DREAM_JUDGE", "").split()
        urls = urls or os.environ.get("DREAM_JUDGE_BASE_URL", "").split()
    models: list[str | None] = [*names] if names else [None] * bool(urls)
    for url in urls or ():
        check_address(url)
    for name in () if urls else names or ():
        check_model(name)
    places: list[str | None] = [*urls] if urls else [None]
    if len(places) not in (1, len(models)):
        raise UsageError(f"{len(models)} judges and {len(places)} --judge-base-url; give one URL for all, or one each")
    return list(zip(models, places * (len(models) if len(places) == 1 else 1), strict=True))


def with_keys(panel: Sequence[EngineSpec], policy_url: str | None) -> tuple[EngineSpec, ...]:
    """Return the judges with the variables that may hold the key of each: a key goes to no server that it was not given for."""
    names = judge_key_names([judge.base_url for judge in panel], policy_url)
    return tuple(replace(judge, key_names=own) for judge, own in zip(panel, names, strict=True))


def evaluated(run: Run, plan: Plan, items: Sequence[Record], *, writing: bool) -> tuple[list[Record], int]:
    """Return the items answered, judged and, where `writing`, written out, with the exit code: 1 where some could not be."""
    _check(plan, items)
    # The output is opened first: a folder that cannot be written to must not cost the calls.
    with open_writer(run.out) if writing and not run.dry_run else nullcontext() as writer:
        done = asyncio.run(evaluate(run, plan, items))
        if writer is not None:
            for record in done:
                writer.write(record)
    failed = sum(record.error is not None for record in done)
    unread = unscored(done, plan.rule)
    if (failed or unread) and not run.dry_run:
        warn(f"{failed} rows got an error and {unread} responses are unscored; the same command asks again for those alone")
    return done, 1 if (failed or unread) and not run.dry_run else 0


def _check(plan: Plan, items: Sequence[Record]) -> None:
    """Raise UsageError for what would only be found after the policy has been paid."""
    for name in {Item.of(record).name: None for record in items}:
        require_rule(get(name), plan.rule)
    for record in items:
        if record.error is None and not record.responses:
            drawing(record, plan)
    needed = any(to_ask(record, plan.rule) for record in items if record.error is None and not record.responses)
    policy = plan.policy.model or plan.policy.base_url
    if needed and not plan.judges and policy not in (None, DEFAULT_MODEL):
        raise UsageError(
            f"no judge is named, and {DEFAULT_MODEL} judges only its own small world; "
            f"name one with --judge (or DREAM_JUDGE), or --judge {DEFAULT_MODEL}"
        )


async def evaluate(run: Run, plan: Plan, records: Sequence[Record]) -> list[Record]:
    """Return the records with responses and verdicts.

    Only what is missing is asked for: the policy where a record has no response, a judge where it has not given its verdict.
    """
    done = list(records)
    if any(not record.responses for record in done if record.error is None):
        done = await _phase(run, plan.policy, done, lambda engine: Answerer(engine, plan))
    done = [by_rule(record) for record in done]
    if any(to_ask(record, plan.rule) for record in done if record.error is None):
        roles = prompts_of(done, plan.rule)
        for judge in _judges(plan, done):
            done = await _phase(
                run, judge, done, lambda engine: with_model_prompts(Asker(engine, plan.prompts, plan.rule, roles), run.tell)
            )
    return done


def _judges(plan: Plan, records: Sequence[Record]) -> tuple[EngineSpec, ...]:
    """Return the judges that were named, else the default model where the responses are its own; those of others stay unscored."""
    models = {response.model for record in records if record.error is None for response in record.responses or ()}
    own = (EngineSpec(DEFAULT_MODEL, store=plan.policy.store),) if models <= {DEFAULT_MODEL, DryEngine.kind} else ()
    return plan.judges or own


async def _phase(run: Run, spec: EngineSpec, records: Sequence[Record], make_step: Callable[[Engine], Step]) -> list[Record]:
    engine = await engine_for(run, spec)
    try:
        done = [record async for record in mapped(run, records, step=make_step(engine), window=2 * engine.concurrency, tally=Tally())]
    finally:
        await engine.close()
    if isinstance(engine, DryEngine):
        run.tell(f"dry run, {spec.model or public_address(spec.base_url or '') or DEFAULT_MODEL}: {engine.report(run.prices)}")
    elif run.verbose:
        run.tell(cost_report(engine.usage, run.prices))
    return done


def unscored(records: Sequence[Record], rule: Rule) -> int:
    """Return how many responses have a question under a rule that was not, or could not be, answered."""
    return sum(
        any(not response.verdicts_under(rule).get(q.question, NOT_ASKED).answered for q in questions(record, rule))
        for record in records
        if record.error is None
        for response in record.responses or ()
    )
