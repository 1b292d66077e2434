"""The options of commands that query a judge."""

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.records.choices import Rubric

RubricName = Annotated[
    Rubric,
    typer.Option(help="Grade on a scale as in the paper, or from Yes/No questions (facts), for judges that cannot use a scale."),
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Subtract the judge's bias towards Yes, measured on an empty request and response.")
]
