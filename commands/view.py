"""Look into a file of records.    dream view judged.jsonl --where "risk_category = 'Privacy' and score < 0.5" """

from __future__ import annotations

from typing import Annotated

import typer

from dream_cli.cli.options import ReadingOptions, Source

Count = Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Show this many records.  [default: 10]", show_default=False)]
Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="Show the record with this id.")]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL", help="Show records of which this holds: columns of records, observations and responses; one match is enough."
    ),
]
Sort = Annotated[str | None, typer.Option(metavar="SQL", help="Sort by a column or expression; -score sorts the greatest first.")]
Sql = Annotated[str | None, typer.Option(metavar="SQL", help="Answer a question about the views records, observations, responses.")]
Html = Annotated[str | None, typer.Option(metavar="FILE", help="Write a gallery, one HTML file that fetches nothing; 500 records, or -n.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Serve the gallery page by page, on this machine only; 0 picks a port.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables: a summary, rows, or whole records.")]
Images = Annotated[bool | None, typer.Option("--images/--no-images", help="Draw pictures, as well as the terminal can.")]


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
    """Look into a file of records: what is in it, or single records as a person reads them.

    Without options: its fields, risks, scores, lengths, images and errors. The file is never written.

    Example: dream view examples/records.jsonl -n 2
    """
    from dream_cli.viewing import looking
    from dream_cli.viewing.selecting import Selection
    from dream_cli.viewing.tables import open_tables

    selection = Selection(id_, where, sort)
    looking.check_options(selection, limit, sql=sql, html=html, port=port, as_json=as_json)
    with open_tables(source, columns.reading) as tables:
        if sql is not None:
            looking.show_query(tables, sql, as_json)
        elif html is not None:
            looking.write_gallery(tables, selection, limit, html)
        elif port is not None:
            from dream_cli.viewing.html.serving import serve

            serve(tables, selection, port)
        elif selection.is_everything and limit is None:
            looking.show_summary(tables, as_json)
        else:
            looking.show(tables, selection, limit=limit, as_json=as_json, images=images)
