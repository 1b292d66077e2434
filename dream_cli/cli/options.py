"""The options that commands share, each declared once, and their groups; invalid values are rejected during parsing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from dream_cli.cli.arguments import OptionGroup, source_of
from dream_cli.cli.cost_options import CostOptions, RequestsOut
from dream_cli.cli.local_options import Adapter, EngineArgs, read_engine_args
from dream_cli.cli.ray_options import RayOptions
from dream_cli.cli.request_fields import read_body, read_headers
from dream_cli.cli.shard_options import Shard, ShardLimit, ShardsOut, Sources, files_of, part_of
from dream_cli.records.choices import LocalEngine

if TYPE_CHECKING:
    from dream_cli.engines.protocol import EngineSpec
    from dream_cli.method.stages import Run
    from dream_cli.records.columns import Reading


def _source(path: str | None) -> str | None:
    from dream_cli.records.streams import check_source

    check_source(path)
    return path


def by_hand(ctx: typer.Context, *names: str) -> bool:
    """Whether one of these options is given on the command line; environment variables do not count."""
    return any(source_of(ctx, name) == "COMMANDLINE" for name in names)


def _out(path: str | None) -> str | None:
    from dream_cli.records.outputs import check_out

    check_out(path)
    return path


def _cards(files: list[Path] | None) -> list[Path]:
    from dream_cli.evaluation.reports import check_card

    return [check_card(file) for file in files or []]


def _model(ctx: typer.Context, model: str | None) -> str | None:
    # Eager options are read before this one.
    served = source_of(ctx, "base_url") != "DEFAULT" or ctx.params.get("requests") is not None
    # dream eval may need no model, and reports an unknown name before a missing package.
    if not served and not ctx.params.get("dry_run") and ctx.command.name != "eval":
        from dream_cli.engines.registry import check_model

        check_model(model, ctx.params.get("engine"))
    return model


def _engine(name: str | None) -> str | None:
    if name is not None:
        from dream_cli.engines.registry import check_engine

        check_engine(name)
    return name


def _base_url(address: str | None) -> str | None:
    if address is not None:
        from dream_cli.engines.registry import check_address

        check_address(address)
    return address


def _body(text: str | None) -> str | None:
    read_body(text)
    return text


def _headers(lines: list[str] | None) -> list[str]:
    read_headers(lines)
    return lines or []


def _store(path: str | None) -> str | None:
    if path is not None:
        from dream_cli.engines.store import check_store

        check_store(path)
    return path


def _prompts(folder: Path | None) -> Path | None:
    from dream_cli.prompts.rendering import Prompts

    Prompts.load(folder)
    return folder


def _taxonomy(file: Path | None) -> Path | None:
    if file is not None:
        from dream_cli.prompts.taxonomy import Taxonomy

        Taxonomy.load(file)
    return file


Source = Annotated[
    str | None,
    typer.Argument(metavar="FILE", callback=_source, help="Records: .jsonl, .jsonl.gz, .json or .parquet (default or -: stdin)."),
]
Out = Annotated[
    str | None,
    typer.Option("-o", "--out", metavar="FILE", callback=_out, help="Output file, format by suffix (default: JSONL on stdout)."),
]
ImageRoot = Annotated[
    Path | None,
    typer.Option(
        envvar="DREAM_IMAGE_ROOT",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Folder of images; relative paths start here, else in the folder of FILE (stdin: the current one).",
    ),
]
AllowOutside = Annotated[
    bool,
    typer.Option("--allow-outside", help="Allow image paths outside the folder of FILE and of --image-root."),
]
MaxPixels = Annotated[
    int | None, typer.Option(envvar="DREAM_MAX_PIXELS", metavar="N", min=1, help="Scale larger images down to N pixels (width x height).")
]
ImageColumn = Annotated[
    str | None,
    typer.Option(metavar="NAME", envvar="DREAM_IMAGE_COLUMN", help="Column with the images (default: images, else image)."),
]
PromptColumn = Annotated[
    str | None, typer.Option(metavar="NAME", envvar="DREAM_PROMPT_COLUMN", help="Column with the prompt (default: prompt).")
]
Limit = Annotated[int | None, typer.Option("-l", "--limit", min=1, help="Stop after this many records.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Retry = Annotated[bool, typer.Option("--retry-errors", help="Retry rows that have an error.")]
DryRun = Annotated[bool, typer.Option("--dry-run", is_eager=True, help="Count calls, tokens and cost without making the calls.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no summary on stderr.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Report model, cost and time on stderr.")]
Cards = Annotated[
    list[Path] | None,
    typer.Option(
        "--card",
        "--html",
        "--plot",
        metavar="FILE",
        callback=_cards,
        help="Write the evaluation card: .html, .md, .json, .png, .svg or .pdf (repeatable).",
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        "-m", "--model", envvar="DREAM_MODEL", metavar="PATH-OR-ID", callback=_model, help="Policy model (default: the embedded model)."
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        envvar="DREAM_JUDGE",
        metavar="PATH-OR-ID",
        callback=_model,
        help="Teacher and judge model (default: the embedded model).",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="DREAM_BASE_URL",
        metavar="URL",
        is_eager=True,
        callback=_base_url,
        help="URL of an OpenAI-compatible server, e.g. http://host:8000/v1.",
    ),
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(
        envvar=["DREAM_JUDGE_BASE_URL", "DREAM_BASE_URL"],
        metavar="URL",
        is_eager=True,
        callback=_base_url,
        help="URL of an OpenAI-compatible server, e.g. http://host:8000/v1.",
    ),
]
ModelTag = Annotated[
    str | None, typer.Option(envvar="DREAM_MODEL_TAG", help="A label for the model, for servers that reuse one model name.")
]
Concurrency = Annotated[int, typer.Option(envvar="DREAM_CONCURRENCY", min=1, help="Maximum concurrent requests to a server.")]
Timeout = Annotated[float, typer.Option(envvar="DREAM_TIMEOUT", min=0.1, help="Timeout per server request, in seconds.")]
Body = Annotated[
    str | None,
    typer.Option(
        "--body",
        metavar="JSON",
        callback=_body,
        help='Fields merged into each request to the server; null leaves one out, e.g. {"seed": null}.',
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="KEY:VALUE", callback=_headers, help="A header for each request to the server (repeatable)."),
]
JudgeBody = Annotated[str | None, typer.Option(metavar="JSON", callback=_body, help="The same as --body for each request to a judge.")]
JudgeHeader = Annotated[
    list[str] | None, typer.Option(metavar="KEY:VALUE", callback=_headers, help="The same as --header for each request to a judge.")
]
ThinkingBudget = Annotated[
    int | None,
    typer.Option(min=0, help="Maximum reasoning tokens, in addition to those of the answer (0: no reasoning)."),
]
Engine = Annotated[
    str | None,
    typer.Option(
        envvar="DREAM_ENGINE",
        metavar="NAME",
        callback=_engine,
        autocompletion=lambda: list(get_args(LocalEngine)),
        is_eager=True,
        help=f"Engine for a local model: {', '.join(get_args(LocalEngine))}, or a plug-in (default: vllm if installed and there is a GPU).",
    ),
]
BatchSize = Annotated[int, typer.Option(envvar="DREAM_BATCH_SIZE", min=1, help="Batch size for a local model, in requests.")]
Store = Annotated[
    str | None,
    typer.Option(
        envvar="DREAM_STORE",
        metavar="PATH",
        callback=_store,
        help="Call store: SQLite file that keeps finished calls (default: in the user's cache folder).",
    ),
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Neither store calls nor reuse stored ones.")]
PromptFolder = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="DIR",
        callback=_prompts,
        help="Folder of prompt templates that replace the built-in and the model's own ones (the authors' release works too).",
    ),
]
TaxonomyFile = Annotated[
    Path | None,
    typer.Option(
        "--taxonomy", metavar="FILE", callback=_taxonomy, help="Taxonomy file that replaces the sources and categories of the paper."
    ),
]


class EngineOptions(OptionGroup):
    """The policy, and the engine that runs it."""

    model: Policy = None
    base_url: BaseUrl = None
    adapter: Adapter = None
    engine: Engine = None
    engine_args: EngineArgs = None
    model_tag: ModelTag = None
    concurrency: Concurrency = 8
    thinking_budget: ThinkingBudget = None
    body: Body = None
    header: Header = None
    timeout: Timeout = 120.0
    batch_size: BatchSize = 8
    store: Store = None
    no_store: NoStore = False

    def spec(self, role: str) -> EngineSpec:
        """Return the specification of the engine; `role` determines the variable of its API key ("judge": DREAM_JUDGE_API_KEY)."""
        from dream_cli.engines.api_keys import key_names
        from dream_cli.engines.protocol import EngineSpec
        from dream_cli.engines.store import default_store

        return EngineSpec(
            model=self.model,
            base_url=self.base_url,
            adapter=None if self.adapter is None else str(self.adapter),
            engine=self.engine,
            engine_args=read_engine_args(self.engine_args),
            model_tag=self.model_tag,
            concurrency=self.concurrency,
            timeout=self.timeout,
            batch_size=self.batch_size,
            store=None if self.no_store else self.store or str(default_store()),
            key_names=key_names(role),
            body=read_body(self.body),
            headers=read_headers(self.header),
            thinking=self.thinking_budget,
        )


class JudgeOptions(EngineOptions):
    """The teacher or judge, and the engine that runs it."""

    model: Judge = None
    base_url: JudgeUrl = None


class ReadingOptions(OptionGroup):
    """The columns and the image folders of the input files."""

    image_root: ImageRoot = None
    allow_outside: AllowOutside = False
    image_column: ImageColumn = None
    prompt_column: PromptColumn = None

    @property
    def reading(self) -> Reading:
        """The columns and the image folder, for the readers of records."""
        from dream_cli.records.columns import Reading

        return Reading(self.image_root, self.image_column, self.prompt_column, allow_outside=self.allow_outside)


class ShowingOptions(ReadingOptions):
    """The columns and the images of the input files, and the maximum size of images for a model."""

    max_pixels: MaxPixels = None

    @property
    def reading(self) -> Reading:
        """The columns and the images, for the readers of records."""
        return replace(super().reading, max_pixels=self.max_pixels)


class RunOptions(ShowingOptions):
    """Input, output, limits and reports of a run with an engine."""

    out: Out = None
    dry_run: DryRun = False
    cost: CostOptions
    requests: RequestsOut = None
    ray: RayOptions
    quiet: Quiet = False
    verbose: Verbose = False

    def run(self, stage: str) -> Run:
        """Return the run of the stage with this name."""
        from dream_cli.engines.requests_file import Requests
        from dream_cli.errors import UsageError
        from dream_cli.method.stages import Run
        from dream_cli.records.shards import is_folder

        if self.requests and (self.dry_run or is_folder(self.out)):
            raise UsageError(
                "--requests writes the calls of one run; it cannot be combined with --dry-run or -o DIR/ (run it once per file)"
            )
        return Run(
            stage=stage,
            out=self.out,
            reading=self.reading,
            dry_run=self.dry_run,
            quiet=self.quiet,
            verbose=self.verbose,
            limits=self.cost.limits,
            requests=Requests(self.requests) if self.requests else None,
            cluster=self.ray.cluster,
        )


class StageOptions(RunOptions):
    """A run that maps records to records."""

    source: Sources = None
    out: ShardsOut = None
    shard: Shard = None
    limit: ShardLimit = None
    retry_errors: Retry = False

    def run(self, stage: str) -> Run:
        """Return the run of the stage with this name."""
        from dream_cli.records.atomic import check_own_input

        if self.requests is not None:
            check_own_input(self.requests, *(files_of(self.source) or ("-",)), option="--requests")
        if self.limit is not None:
            check_own_input(self.out, *(files_of(self.source) or ("-",)))
        return replace(
            super().run(stage),
            sources=files_of(self.source),
            part=part_of(self.shard),
            limit=self.limit,
            retry_errors=self.retry_errors,
        )
