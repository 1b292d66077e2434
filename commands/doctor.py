"""Check this installation.    dream doctor --model Qwen/Qwen2.5-VL-7B-Instruct"""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option("-m", "--model", envvar="DREAM_MODEL", metavar="PATH-OR-ID", help="Show which engine would run this model, and why."),
]
BaseUrl = Annotated[str | None, typer.Option(envvar="DREAM_BASE_URL", metavar="URL", help="Show the engine for a model on this server.")]
Deep = Annotated[bool, typer.Option("--deep", help="Also import torch and list its devices; takes seconds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def run(model: Model = None, base_url: BaseUrl = None, deep: Deep = False, json: AsJson = False) -> None:
    """Check this installation.

    Reports packages and versions, plug-ins, GPUs, where calls are kept, and the engine that would run a model. Exits with 1 if something would break a command;
    packages that only some commands need may be absent.

    Example: dream doctor
    """
    from dream_cli.cli.doctor import as_json, examine, report
    from dream_cli.engines.protocol import EngineSpec

    findings = examine(EngineSpec(model, base_url), deep)
    typer.echo(as_json(findings) if json else report(findings), nl=False)
    raise typer.Exit(1 if any(finding.state == "bad" for finding in findings) else 0)
