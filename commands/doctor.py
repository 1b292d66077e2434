"""Look at this installation.    dream doctor --model Qwen/Qwen2.5-VL-7B-Instruct"""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str | None, typer.Option("--model", envvar="DREAM_MODEL", metavar="PATH-OR-ID", help="Say which engine this model would get, and why.")
]
BaseUrl = Annotated[str | None, typer.Option(envvar="DREAM_BASE_URL", metavar="URL", help="The same for a model at a server.")]
Deep = Annotated[bool, typer.Option("--deep", help="Also let torch say what it finds; takes seconds.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object in place of the text.")]


def run(model: Model = None, base_url: BaseUrl = None, deep: Deep = False, json: AsJson = False) -> None:
    """Say what is installed and fits together, which GPUs there are, and which engine a model would get.

    Exits with 1 where something would break a command; what only some commands need may be absent.

    Example: dream doctor
    """
    from dream_cli.cli.doctor import as_json, examine, report
    from dream_cli.engines.protocol import EngineSpec

    findings = examine(EngineSpec(model, base_url), deep)
    typer.echo(as_json(findings) if json else report(findings), nl=False)
    raise typer.Exit(1 if any(finding.state == "bad" for finding in findings) else 0)
