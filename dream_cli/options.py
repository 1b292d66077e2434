"""The options that commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dream_cli.engines.loader import EngineSpec

Source = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="Records: .jsonl, .jsonl.gz, .json or .parquet; stdin where absent or -.")
]
Out = Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="Write here (format by suffix) instead of JSONL on stdout.")]
ImageRoot = Annotated[Path | None, typer.Option(help="Folder of relative image paths read from stdin; default the current one.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after this many records.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn at random.")]
Retry = Annotated[bool, typer.Option("--retry-errors", help="Try rows again that came with an error.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count calls and tokens instead of making them.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no summary on stderr.")]
Policy = Annotated[
    str | None, typer.Option("--model", envvar="DREAM_MODEL", metavar="PATH-OR-ID", help="The policy; nano where none is named.")
]
Judge = Annotated[
    str | None, typer.Option("--model", envvar="DREAM_JUDGE", metavar="PATH-OR-ID", help="The teacher and judge; nano where none is named.")
]
BaseUrl = Annotated[
    str | None, typer.Option(envvar="DREAM_BASE_URL", metavar="URL", help="An OpenAI-compatible server, e.g. http://host:8000/v1.")
]
ModelTag = Annotated[str | None, typer.Option(envvar="DREAM_MODEL_TAG", help="Tells two models apart that a server gives one name.")]
Concurrency = Annotated[int, typer.Option(envvar="DREAM_CONCURRENCY", min=1, help="Requests in flight at a server.")]
BatchSize = Annotated[int, typer.Option(envvar="DREAM_BATCH_SIZE", min=1, help="Requests in a batch of a local model.")]
Store = Annotated[
    str | None, typer.Option(envvar="DREAM_STORE", metavar="PATH", help="Where finished calls are kept; default the user's cache.")
]
NoStore = Annotated[bool, typer.Option("--no-store", help="Keep no calls and reuse none.")]
PromptFolder = Annotated[
    Path | None, typer.Option("--prompts", metavar="DIR", help="Templates to use in place of ours (also the authors' release).")
]
TaxonomyFile = Annotated[Path | None, typer.Option("--taxonomy", metavar="FILE", help="Sources and categories in place of the paper's.")]


def engine_spec(
    model: str | None,
    base_url: str | None,
    model_tag: str | None,
    concurrency: int,
    batch_size: int,
    store: str | None,
    no_store: bool,
    prompts_sha256: str | None = None,
) -> EngineSpec:
    """Gather what the user said of the engine."""
    from dream_cli.engines.loader import EngineSpec
    from dream_cli.engines.store import default_store

    path = None if no_store else store or str(default_store())
    return EngineSpec(model, base_url, model_tag, concurrency, batch_size, store=path, prompts_sha256=prompts_sha256)
