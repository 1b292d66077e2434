"""Manage the call store.    dream store info"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from dream_cli.cli.options import Quiet, Store


def _age(text: str | None) -> str | None:
    if text is not None:
        from dream_cli.engines.store_upkeep import time_before

        time_before(text)
    return text


What = Annotated[
    Literal["path", "info", "prune", "export", "import"], typer.Argument(metavar="ACTION", help="path, info, prune, export or import.")
]
Input = Annotated[
    str | None, typer.Argument(metavar="FILE", help="For import: exported calls, or the results of a batch (default or -: stdin).")
]
Stage = Annotated[str | None, typer.Option(metavar="NAME", help="Only calls of this stage, e.g. judge.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Only calls of this model, as info shows it.")]
OlderThan = Annotated[str | None, typer.Option(metavar="AGE", callback=_age, help="Only calls made longer ago: 30d, 12h or 8w.")]
Out = Annotated[str | None, typer.Option("-o", "--out", metavar="OUT", help="For export: the output file (default: stdout).")]
AsJson = Annotated[bool, typer.Option("--json", help="For info: print one line of JSON.")]


def run(
    action: What,
    source: Input = None,
    store: Store = None,
    stage: Stage = None,
    model: Model = None,
    older_than: OlderThan = None,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show, prune, export or import the call store.

    path prints the store's path, info its size and its calls. prune deletes the calls that the options select and frees their space.
    export writes calls as JSONL, and import adds them to a store; existing calls are kept unchanged. import also reads the
    results of a batch, whose calls a command wrote with --requests.

    Example: dream store prune --stage judge --older-than 30d
    """
    from pathlib import Path

    from dream_cli.engines import store_upkeep
    from dream_cli.engines.store import default_store
    from dream_cli.errors import UsageError

    selection = store_upkeep.CallSelection(stage, model, store_upkeep.time_before(older_than) if older_than else None)
    path = Path(store) if store else default_store()
    uses = {"FILE": (source, "import"), "--out": (out, "export"), "--json": (as_json or None, "info")}
    if wrong := [f"{name} is for {user}" for name, (value, user) in uses.items() if value is not None and action != user]:
        raise UsageError(", ".join(wrong))
    if action in ("path", "import") and not selection.is_everything:
        raise UsageError(f"--stage, --model and --older-than select calls; {action} takes none of them")
    report, failed = "", 0
    match action:
        case "path":
            sys.stdout.write(f"{path}\n")
        case "info":
            contents = store_upkeep.contents(path, selection)
            sys.stdout.write(contents.to_json() if as_json else contents.report())
        case "prune":
            if selection.is_everything:
                raise UsageError(f"name the calls to delete: --stage, --model or --older-than; for all of them delete {path}")
            report = store_upkeep.prune(path, selection)
        case "export":
            report, failed = store_upkeep.export_to(path, selection, out)
        case "import":
            report, failed = store_upkeep.import_from(path, source)
    if report and not quiet:
        sys.stderr.write(f"dream store: {report}\n")
    raise typer.Exit(1 if failed else 0)
