"""The evaluation of benchmark items: first the policy, then one judge after the other, so that only one model is loaded at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace

from dream_cli.benchmarks.benchmark import Item, JudgeQuestion
from dream_cli.benchmarks.loading import warn
from dream_cli.benchmarks.registry import get
from dream_cli.engines.address import public_address
from dream_cli.engines.api_keys import judge_key_names
from dream_cli.engines.dry import DryEngine
from dream_cli.engines.openai_request import merged_fields
from dream_cli.engines.protocol import Engine, EngineSpec, Sampling, answer_of
from dream_cli.engines.registry import DEFAULT_MODEL, check_address, check_model, uses_gpu
from dream_cli.engines.requests_file import written
from dream_cli.engines.usage import Usage
from dream_cli.errors import Unanswered, UsageError, as_row_error
from dream_cli.evaluation.guard_judge import GuardJudge
from dream_cli.evaluation.judge_questions import EvaluationJudge, by_rule, prompts_of, questions, questions_for_judge
from dream_cli.evaluation.scorecards import require_rule
from dream_cli.method.chats import conversation
from dream_cli.method.confining import Step
from dream_cli.method.model_prompts import with_model_prompts
from dream_cli.method.sampling import response_of
from dream_cli.method.stages import NO_MODEL, Run, engine_for, mapped, report_cost, spread
from dream_cli.method.tally import Tally
from dream_cli.prompts.guard_formats import GuardFormat, guard_format
from dream_cli.prompts.rendering import Prompts
from dream_cli.records.choices import JudgeFormat, Rule
from dream_cli.records.outputs import open_writer
from dream_cli.records.record import Record
from dream_cli.records.verdicts import NOT_ASKED
from dream_cli.records.visible import amount

ITEMS_OF_WORKER = 32  # items per task of a worker


@dataclass(frozen=True)
class EvaluationPlan:
    """The policy, the judges and the rule of an evaluation, and its changes to the benchmark's sampling (None: no change).

    `formats` are the formats of the judges: one for all, or one each.
    """

    policy: EngineSpec
    judges: tuple[EngineSpec, ...]
    prompts: Prompts
    formats: tuple[JudgeFormat, ...] = ("questions",)
    rule: Rule = "strict"
    calibrate: bool = False  # subtract the bias of the judges to Yes
    trials: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Answerer:
    """Samples responses for a record without any, with the sampling parameters of its benchmark."""

    engine: Engine
    plan: EvaluationPlan

    async def __call__(self, record: Record) -> Record:
        """Return the record with one response for each trial."""
        if record.responses:
            return record
        sampling, trials = sampling_of(record, self.plan)
        completions = await self.engine.generate(conversation(record.turns()[-1], record.images), sampling, range(trials))
        for completion in completions:
            answer_of(completion)  # raises for a filtered completion: a rate over the others alone would be biased
        return replace(record, responses=tuple(response_of(completion, self.engine.model) for completion in completions))


def sampling_of(record: Record, plan: EvaluationPlan) -> tuple[Sampling, int]:
    """Return the sampling of the responses to a record, and their number; several have temperature 1: greedy ones would be equal."""
    benchmark = get(Item.of(record).name)
    trials = plan.trials or benchmark.trials
    temperature = benchmark.sampling.temperature if plan.temperature is None else plan.temperature
    if trials > 1 and temperature == 0:
        if plan.temperature is not None:
            raise UsageError(f"--temperature 0 samples the same response {trials} times; give another temperature, or --trials 1")
        temperature = 1.0
    sampling = replace(
        benchmark.sampling, temperature=temperature, max_tokens=plan.max_tokens or benchmark.sampling.max_tokens, seed=plan.seed
    )
    return sampling, trials


def judges(names: Sequence[str] | None, urls: Sequence[str] | None, *, from_environment: bool) -> list[tuple[str | None, str | None]]:
    """Return (model, base URL) of each judge; one URL serves all judges, several serve one each.

    DREAM_JUDGE and DREAM_JUDGE_BASE_URL are read only when a benchmark runs: scoring a file makes no calls unless an option names a judge.
    """
    if from_environment:
        names = names or os.environ.get("DREAM_JUDGE", "").split()
        urls = urls or os.environ.get("DREAM_JUDGE_BASE_URL", "").split()
    models: list[str | None] = [*names] if names else [None] * bool(urls)
    for url in urls or ():
        check_address(url)
    for name in () if urls else names or ():
        try:
            check_model(name)
        except UsageError as error:
            raise UsageError(f"{error} (the server of a judge: --judge-base-url)") from None
    addresses: list[str | None] = [*urls] if urls else [None]
    if len(addresses) not in (1, len(models)):
        raise UsageError(
            f"{amount(len(models), 'judge')} and {len(addresses)} --judge-base-url; give one URL for all judges, or one per judge"
        )
    return list(zip(models, addresses * (len(models) if len(addresses) == 1 else 1), strict=True))


def with_keys(panel: Sequence[EngineSpec], policy_url: str | None) -> tuple[EngineSpec, ...]:
    """Return the judges with the environment variables of their keys: a key is sent only to the server it belongs to."""
    names = judge_key_names([judge.base_url for judge in panel], policy_url)
    return tuple(replace(judge, key_names=own) for judge, own in zip(panel, names, strict=True))


def run_evaluation(run: Run, plan: EvaluationPlan, items: Sequence[Record], *, writing: bool) -> tuple[list[Record], int]:
    """Answer and judge the items, and write them if `writing`; return them with the exit code, which is 1 if some failed."""
    _check(plan, items)
    # The output is opened first, so that a folder without write access fails before the calls are paid.
    with open_writer(run.out) if writing and not run.dry_run else nullcontext() as writer, written(run.requests):
        done = asyncio.run(evaluate(run, plan, items))
        if writer is not None:
            for record in done:
                writer.write(record)
    waiting = sum(record.error is not None and record.error.kind == Unanswered.kind for record in done)
    if run.requests and not run.quiet:
        run.report(run.requests.file.report(waiting))
    if waiting:
        return done, 1
    failed = sum(record.error is not None for record in done)
    missing = unscored(done, plan.rule)
    if run.dry_run or not (failed or missing):
        return done, 0
    warn(
        f"{amount(failed, 'row', 'got')} an error and {amount(missing, 'response', 'are')} unscored; run the same command again to retry only those"
    )
    return done, 1


@dataclass(frozen=True)
class PanelJudge:
    """One judge of a panel; `guard` is the published format of a guard model, None for a judge that answers our questions."""

    spec: EngineSpec
    guard: GuardFormat | None = None


def _panel(plan: EvaluationPlan) -> list[PanelJudge]:
    """Return the judges; raise UsageError if the formats do not match them."""
    if not plan.judges and plan.formats != ("questions",):
        raise UsageError("--judge-format is the form of a named judge; name one with --judge or --judge-base-url")
    if len(plan.formats) not in (1, len(plan.judges)):
        raise UsageError(
            f"{amount(len(plan.judges), 'judge')} and {len(plan.formats)} --judge-format; give one format for all judges, or one per judge"
        )
    formats = plan.formats * (len(plan.judges) if len(plan.formats) == 1 else 1)
    return [
        PanelJudge(spec) if name == "questions" else _guard(spec, guard_format(name))
        for spec, name in zip(plan.judges, formats, strict=True)
    ]


def _guard(spec: EngineSpec, form: GuardFormat) -> PanelJudge:
    if form.body and spec.base_url is None:
        raise UsageError(f"{form.name} gets its policy as a variable of its chat template, by a server: serve it and name --judge-base-url")
    return PanelJudge(replace(spec, body=merged_fields(form.body, spec.body)), form)


def _check(plan: EvaluationPlan, items: Sequence[Record]) -> None:
    """Raise UsageError for an error of the plan that would otherwise appear only after the calls to the policy are paid."""
    for name in {Item.of(record).name: None for record in items}:
        require_rule(get(name), plan.rule)
    for question in _unanswered(plan, items):
        warn(f"no judge answers the question {question!r}, so it stays unscored; add a judge that answers our questions")
    for record in items:
        if record.error is None and not record.responses:
            sampling_of(record, plan)
    needed = any(questions_for_judge(record, plan.rule) for record in items if record.error is None and not record.responses)
    policy = plan.policy.model or plan.policy.base_url
    if needed and not plan.judges and policy not in (None, DEFAULT_MODEL):
        raise UsageError(
            f"no judge is named, and {DEFAULT_MODEL} judges only its own small world; "
            f"name one with --judge (or DREAM_JUDGE), or --judge {DEFAULT_MODEL}"
        )


def _unanswered(plan: EvaluationPlan, items: Sequence[Record]) -> list[str]:
    """Return the questions that no judge answers, if all judges are guards."""
    guards = [judge.guard for judge in _panel(plan)]
    if not guards or None in guards:
        return []
    answered = {question for guard in guards if guard for question in guard.questions}
    wanted = (q for record in items if record.error is None for q in questions_for_judge(record, plan.rule))
    return list(dict.fromkeys(q.question for q in wanted if not isinstance(q, JudgeQuestion) or q.question not in answered))


async def evaluate(run: Run, plan: EvaluationPlan, records: Sequence[Record]) -> list[Record]:
    """Return the records with responses and verdicts.

    Only missing responses of the policy and missing verdicts of the judges are requested.
    """
    done, usages = list(records), list[Usage]()
    if any(not record.responses for record in done if record.error is None):
        done = await _phase(run, plan.policy, done, lambda engine: Answerer(engine, plan), usages=usages)
    done = [_by_rule(run, record) for record in done]
    if any(questions_for_judge(record, plan.rule) for record in done if record.error is None):
        roles = prompts_of(done, plan.rule)
        # Without a named judge, the default model judges its own responses only, because it knows only its small world.
        models = {response.model for record in done if record.error is None for response in record.responses or ()}
        own = (EngineSpec(DEFAULT_MODEL, store=plan.policy.store),) if models <= {DEFAULT_MODEL, DryEngine.kind} else ()
        for judge in _panel(plan) or [PanelJudge(spec) for spec in own]:

            def make_step(engine: Engine, guard: GuardFormat | None = judge.guard) -> Step:
                if guard is not None:
                    return GuardJudge(engine, plan.prompts, plan.rule, form=guard)
                judge_step = EvaluationJudge(engine, plan.prompts, plan.rule, roles, calibrate=plan.calibrate)
                return with_model_prompts(judge_step, run.report)

            done = await _phase(run, judge.spec, done, make_step, usages=usages)
    if run.limits.prices and len(usages) > 1 and not (run.quiet or run.dry_run):
        run.report(f"cost of all models {sum(map(run.limits.prices.cost, usages)):.4g}")
    return done


def _by_rule(run: Run, record: Record) -> Record:
    try:
        return by_rule(record)
    except Exception as error:  # noqa: BLE001 - a single row must not end the run
        return record.failed(run.stage, as_row_error(error))


@dataclass(frozen=True)
class Phase:
    """The pass of one model over the items: the policy, or a judge."""

    run: Run
    spec: EngineSpec
    make_step: Callable[[Engine], Step]

    @property
    def needs_gpu(self) -> bool:
        """Whether the model runs on this machine and can use a GPU."""
        return uses_gpu(self.spec)

    def name(self, items: Sequence[Record]) -> str:
        """Return the name of a task's items."""
        return f"the items {items[0].id} to {items[-1].id}"

    async def open(self) -> Engine:
        """Return the engine of the model."""
        return await engine_for(self.run, self.spec)

    async def do(self, engine: Engine, items: Sequence[Record], tally: Tally) -> list[Record]:
        """Return the items with the responses or verdicts of the model."""
        async with aclosing(mapped(self.run, items, step=self.make_step(engine), engine=engine, tally=tally)) as rows:
            return [record async for record in rows]


async def _phase(
    run: Run, spec: EngineSpec, records: Sequence[Record], make_step: Callable[[Engine], Step], *, usages: list[Usage]
) -> list[Record]:
    """Return the records after the pass of one model, whose usage is added to `usages`."""
    name = spec.label or public_address(spec.base_url or "") or DEFAULT_MODEL
    if spec.model is None and spec.base_url is None and not (run.quiet or run.dry_run):
        run.report(NO_MODEL)
    if run.cluster is not None and not run.dry_run:
        parts = [records[start : start + ITEMS_OF_WORKER] for start in range(0, len(records), ITEMS_OF_WORKER)]
        with spread(run, run.cluster, Phase(run.of_worker, spec, make_step), total=len(records)) as (pool, advance):
            done = [record for part in await pool.map(parts, advance) for record in part]
        usages.append(pool.usage)
        report_cost(run, pool, name)
        return done
    phase = Phase(run, spec, make_step)
    engine = await phase.open()
    try:
        done = await phase.do(engine, records, Tally())
    finally:
        await engine.close()
    if isinstance(engine, DryEngine):
        run.report(f"dry run, {name}: {engine.report(run.limits)}")
    usages.append(engine.usage)
    report_cost(run, engine, name)
    return done


def unscored(records: Sequence[Record], rule: Rule) -> int:
    """Return the number of responses with an unanswered question of the rule: not put to a judge, or without a readable answer."""
    return sum(
        any(not response.verdicts_under(rule).get(q.question, NOT_ASKED).answered for q in questions(record, rule))
        for record in records
        if record.error is None
        for response in record.responses or ()
    )
