"""Build preference pairs from judged responses.    dream pair judged.jsonl -o pairs.jsonl"""

from __future__ import annotations

import sys
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
HarmlessShare = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Share of the pairs from harmless prompts; surplus pairs of the other side are left out."),
]
Unbalanced = Annotated[bool, typer.Option("--unbalanced", help="Keep all pairs, whatever the share of harmless prompts.")]
EvenDirections = Annotated[
    bool,
    typer.Option(
        "--even-directions",
        help="Keep as many pairs that teach to decline as pairs that teach to answer (detected by phrases, English only).",
    ),
]
Report = Annotated[bool, typer.Option("--report", help="Also print how often the chosen and the rejected responses decline.")]
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
    harmless_share: HarmlessShare = 0.5,
    unbalanced: Unbalanced = False,
    even_directions: EvenDirections = False,
    report: Report = False,
    limit: Limit = None,
    quiet: Quiet = False,
    *,
    columns: ReadingOptions,
) -> None:
    """Build preference pairs from judged responses.

    A pair is a chosen and a rejected response to the same prompt. Needs no model. Half of the pairs come from harmless prompts,
    because training without them increases refusals. Counts prompts by result on stderr; records with an error are skipped.

    Example: dream pair judged.jsonl --margin 0.2 > pairs.jsonl
    """
    from dream_cli.engines.registry import EMBEDDED
    from dream_cli.formats.sources import read_shards
    from dream_cli.method.pair_sets import PairSet
    from dream_cli.method.pairing import PairRules, pairs_of
    from dream_cli.records.atomic import check_own_input
    from dream_cli.records.outputs import Row, open_writer

    check_own_input(out, *(files_of(source) or ("-",)))
    rules = PairRules(
        policy=policy,
        margin=margin,
        min_chosen=min_chosen,
        max_length_ratio=max_length_ratio,
        per_prompt=per_prompt,
        near_duplicate=near_duplicate,
        keep_cut_off=keep_cut_off,
    )
    pair_set: PairSet[Row] = PairSet(None if unbalanced else harmless_share, even=even_directions, lessons=report)
    unreadable = 0
    with open_writer(out) as writer:
        for record in read_shards(files_of(source), columns.reading, limit):
            unreadable += record.error is not None and not record.came_with_error
            for turn in pairs_of(record, rules):
                for row in pair_set.add(turn, list(map(writer.row, turn.pairs))):
                    writer.write_row(row)
        for row in pair_set.kept():
            writer.write_row(row)
    if not quiet:
        sys.stderr.write(pair_set.receipt())
        for judge in sorted(pair_set.judges & set(EMBEDDED)):
            sys.stderr.write(
                f"  {judge} judged, which knows only its own small world; name a model with dream judge --model or --base-url\n"
            )
    if report:
        sys.stderr.write(pair_set.report())
    raise typer.Exit(1 if unreadable else 0)
