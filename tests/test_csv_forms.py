"""CSV files as spreadsheets and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dream_cli.formats.sources import read_records


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nid;prompt;image\n1;a, b;x.png\n",
        "\ufeffsep=;\r\nid;prompt;image\r\n1;a, b;x.png\r\n",
        'id, prompt, image\n1, "a, b", x.png\n',
        "id|prompt|image\n1|a, b|x.png\n",
        'id,prompt,image\r1,"a, b",x.png\r',
        ',id,prompt,image\n0,1,"a, b",x.png\n',
    ],
)
def test_a_csv_in_the_forms_of_spreadsheets(text: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(text.encode())
    (record,) = read_records(str(tmp_path / "in.csv"))
    assert (record.error, record.id, record.prompt) == (None, "1", "a, b")
    assert [image.path for image in record.images] == [str(tmp_path / "x.png")]


def test_a_space_at_the_start_of_a_cell_is_kept_where_the_first_line_has_none(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,prompt\n1, a\n")
    assert [record.prompt for record in read_records(str(tmp_path / "in.csv"))] == [" a"]


def test_a_column_in_a_hint_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,the question\n1,a\n")
    (record,) = read_records(str(tmp_path / "in.csv"))
    assert record.error is not None and record.error.message.endswith("'the question' may be it: --prompt-column 'the question'")
