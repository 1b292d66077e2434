"""Build preference pairs from judged responses.    dream pair judged.jsonl -o pairs.jsonl"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated

import typer

from dream_cli.cli.options import Limit, Out, Quiet, ReadingOptions
from dream_cli.cli.shard_options import Sources, files_of
from dream_cli.records.choices import PairPolicy

Policy = Annotated[
    PairPolicy,
    typer.Option(help="Pair the best with the worst response, every better with every worse one, or each with the next in rank."),
]
Margin = Annotated[float, typer.Option(min=0.0, max=1.0, help="Minimum score difference between chosen and rejected.")]
MinChosen = Annotated[float, typer.Option(min=0.0, max=10.0, help="Minimum global score of the chosen response.")]
MaxLengthRatio = Annotated[
    float, typer.Option(min=1.0, help="Maximum ratio of the longer to the shorter response, in words (inf: no limit).")
]
PerPrompt = Annotated[int | None, typer.Option(min=1, help="Maximum pairs per prompt (default: 1 for best-worst, else no limit).")]
KeepCutOff = Annotated[bool, typer.Option("--keep-cut-off", help="Also take responses that were cut off at the token limit.")]
NearDuplicate = Annotated[float, typer.Option(min=0.0, max=1.0, help="Word overlap above which two responses count as duplicates.")]


def run(
    source: Sources = None,
    out: Out = None,
    policy: Policy = "best-worst",
    margin: Margin = 0.1,
    min_chosen: MinChosen = 7.0,
    max_length_ratio: MaxLengthRatio = 3.0,
    per_prompt: PerPrompt = None,
    near_duplicate: NearDuplicate = 0.9,
    keep_cut_off: KeepCutOff = False,
    limit: Limit = None,
    quiet: Quiet = False,
    *,
    columns: ReadingOptions,
) -> None:
    """Build preference pairs from judged responses.

    A pair is a chosen and a rejected response to the same prompt. Needs no model. Reports on stderr how many prompts each rule
    dropped; records with an error make no pair.

    Example: dream pair judged.jsonl --margin 0.2 > pairs.jsonl
    """
    from dream_cli.method.pairing import LEFT_OUT, OUTCOMES, PairRules, pairs_of
    from dream_cli.records.shards import read_shards
    from dream_cli.records.streams import open_writer

    rules = PairRules(
        policy=policy,
        margin=margin,
        min_chosen=min_chosen,
        max_length_ratio=max_length_ratio,
        per_prompt=per_prompt,
        near_duplicate=near_duplicate,
        keep_cut_off=keep_cut_off,
    )
    receipt, left_out = Counter[str](), Counter[str]()
    unreadable = pairs = 0
    with open_writer(out) as writer:
        for record in read_shards(files_of(source), columns.reading, limit):
            unreadable += record.error is not None and not record.came_with_error
            for turn in pairs_of(record, rules):
                receipt[turn.outcome] += 1
                left_out += turn.left_out
                pairs += len(turn.pairs)
                for pair in turn.pairs:
                    writer.write(pair)
    if not quiet:
        counted = ", ".join(f"{receipt[name]} {name}" for name in OUTCOMES if receipt[name])
        sys.stderr.write(f"pair: {pairs} pairs of {sum(receipt.values())} prompts: {counted or 'no input'}\n")
        if left_out:
            reasons = ", ".join(f"{left_out[name]} {name}" for name in LEFT_OUT if left_out[name])
            sys.stderr.write(f"  {left_out.total()} responses are no candidates: {reasons}\n")
    raise typer.Exit(1 if unreadable else 0)
