"""Show a file of records.    dream view judged.jsonl --where "risk_category = 'Privacy' and score < 0.5" """

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.cli.options import ReadingOptions, Source

Count = Annotated[int | None, typer.Option("-l", "--limit", min=1, help="Number of records to show.  [default: 10]", show_default=False)]
Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="Show the record with this id.")]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Show records that match an SQL condition on columns of records, observations and responses; one match is enough.",
    ),
]
Sort = Annotated[str | None, typer.Option(metavar="SQL", help="Sort by a column or expression; -score sorts in descending order.")]
Sql = Annotated[str | None, typer.Option(metavar="SQL", help="Run an SQL query on the views records, observations and responses.")]
Html = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write a gallery as one self-contained HTML file (500 records, or --limit).")
]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Serve the gallery on localhost at this port (0: any free port).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables: the summary, query rows, or whole records.")]
Images = Annotated[bool | None, typer.Option("--images/--no-images", help="Draw images in the terminal (default: where it supports them).")]


def run(
    source: Source = None,
    limit: Count = None,
    id_: Id = None,
    where: Where = None,
    sort: Sort = None,
    sql: Sql = None,
    html: Html = None,
    port: Port = None,
    as_json: AsJson = False,
    images: Images = None,
    *,
    columns: ReadingOptions,
) -> None:
    """Show a file of records: a summary, or single records.

    Without options: its fields, risks, scores, lengths, images and errors. The file is never written.

    Example: dream view examples/records.jsonl --limit 2
    """
    from dream_cli.records.atomic import check_own_input
    from dream_cli.viewing import looking
    from dream_cli.viewing.selecting import Selection
    from dream_cli.viewing.tables import open_tables

    selection = Selection(id_, where, sort)
    looking.check_options(selection, limit, sql=sql, html=html, port=port, as_json=as_json)
    with open_tables(source, columns.reading) as tables:
        if sql is not None:
            looking.show_query(tables, sql, as_json)
        elif html is not None:
            check_own_input(html, source)
            looking.write_gallery(tables, selection, limit, html)
        elif port is not None:
            from dream_cli.viewing.html.serving import serve

            serve(tables, selection, port)
        elif selection.is_everything and limit is None:
            looking.show_summary(tables, as_json)
        else:
            looking.show(tables, selection, limit=limit, as_json=as_json, images=images)
