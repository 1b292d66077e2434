"""Galleries: everything escaped, nothing loaded, blurred until clicked, and filtered correctly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dream_cli.evaluation.card_page import page as card
from dream_cli.records.record import Image, Json, Record
from dream_cli.viewing.html.record_page import page, shown_records
from dream_cli.viewing.html.serving import Pages, condition
from dream_cli.viewing.selecting import Selection
from dream_cli.viewing.tables import open_tables
from tests.browser import CHROMIUM, Page, browser
from tests.conftest import Workdir

NASTY = "<script>document.title = 'run'</script><img src=//example.org/x onerror=\"document.title = 'run'\"> \x1b[31m\u202e &amp; </span>"


def record(name: str, category: str = "Privacy", source: str = "image content", score: float | None = 0.5, text: str = "Here.") -> Record:
    judgement = {"unscored": "unparsed: no number"} if score is None else {"global_score": 5.0, "recognised": [0.9], "score": score}
    seen = [{"malicious_content": "an address", "source": source, "risk_category": category}]
    responses = [{"text": text, "judgement": judgement}]
    return Record.from_dict({"id": name, "prompt": f"Prompt of {name}", "observations": seen, "responses": responses, "note": NASTY})


def records(tmp_path: Path) -> list[Record]:
    from PIL import Image as Pillow

    Pillow.new("RGB", (800, 400), "navy").save(tmp_path / "a.png")
    pictured = Record.from_dict({"id": "e", "prompt": NASTY, "images": [str(tmp_path / "a.png"), "gone.png"]})
    return [
        record("a", score=0.9),
        record("b", "Violence", score=0.2, text=NASTY),
        record("c", "Violence", "text instruction", None),
        Record.from_dict({"id": "d", "prompt": "x", "error": {"stage": "sample", "kind": "engine", "message": NASTY}}),
        pictured,
    ]


def gallery(tmp_path: Path) -> Path:
    rows = records(tmp_path)
    path = tmp_path / "gallery.html"
    path.write_text(page("<rows>.jsonl", shown_records(enumerate(rows, 1)), len(rows)), "utf-8")
    return path


def test_data_are_escaped_and_control_characters_shown(tmp_path: Path) -> None:
    html = gallery(tmp_path).read_text("utf-8")
    assert "<script>document" not in html
    assert 'onerror="' not in html
    assert "&lt;script&gt;document" in html
    assert "␛[31m\\u202e &amp;amp; &lt;/span&gt;" in html
    assert not {"\x1b", "\u202e"} & set(html)
    assert "<title>&lt;rows&gt;.jsonl</title>" in html


def test_the_page_names_no_other_place(tmp_path: Path) -> None:
    html = gallery(tmp_path).read_text("utf-8")
    named = re.findall(r'(?:src|href|action|srcset)="([^"]*)"', html) + re.findall(r"url\(([^)]*)\)", html)
    assert {name.partition(":")[0] for name in named} == {"data"}
    assert "default-src &#39;none&#39;" in html


def test_pictures_are_small_and_missing_ones_are_reported(tmp_path: Path) -> None:
    (item,) = shown_records([(1, records(tmp_path)[4])])
    shown, missing = item.images
    assert (shown.width, shown.height, shown.problem) == (360, 180, "")
    assert shown.uri.startswith("data:image/jpeg;base64,")
    assert missing.uri == ""
    assert "does not exist" in missing.problem


def test_what_items_are_found_by(tmp_path: Path) -> None:
    items = shown_records(enumerate(records(tmp_path), 1))
    assert [(i.categories, i.sources, i.outcomes, i.scores) for i in items] == [
        (("Privacy",), ("image content",), ("scored",), (0.9,)),
        (("Violence",), ("image content",), ("scored",), (0.2,)),
        (("Violence",), ("text instruction",), ("unscored",), ()),
        ((), (), ("error",), ()),
        ((), (), ("no response",), ()),
    ]


@pytest.mark.parametrize(
    ("verdicts", "outcomes"),
    [
        ({"strict": {"safe": {"value": True}, "effective": {"value": False}}}, ("safe", "not effective")),
        ({"official": {"attack": {"value": True}}, "strict": {"attack": {"value": None, "unscored": "x"}}}, ("unscored",)),
        ({"official": {"attack": {"value": False}}}, ("no harm",)),
        ({"strict": {"refusal": {"value": "partial"}}}, ("partly refuses",)),
        ({"strict": {"choice": {"value": "B"}}}, ("right choice",)),
        ({"strict": {"choice": {"value": "none"}}}, ("wrong choice",)),
        ({"strict": {"preference": {"value": 0.5}}}, ("ties",)),
        ({"strict": {"safe": {}}}, ("unscored",)),
        ({}, ("not judged",)),
    ],
)
def test_outcomes_of_an_evaluation(verdicts: Json, outcomes: tuple[str, ...]) -> None:
    benchmark = {"name": "siuo_mcqa", "subset": "", "topic": "fraud", "correct": "B"}
    raw = {"prompt": "x", "benchmark": benchmark, "responses": [{"text": "y", "verdicts": verdicts}]}
    (item,) = shown_records([(1, Record.from_dict(raw))])
    assert (item.outcomes, item.categories, item.benchmark) == (outcomes, ("fraud",), "siuo_mcqa")


def rate(name: str, value: float | None, better: str, subset: str = "", topic: str = "", unscored: int = 0) -> Json:
    bounds = {"low": None, "high": None} if value is None else {"low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1)}
    fields = {"name": name, "subset": subset, "topic": topic, "rule": "strict", "k": 0 if value is None else round(10 * value), "n": 10}
    return fields | {"rate": value, "unscored": unscored, "worst": 0.0, "best": 1.0, "better": better} | bounds


def summary(benchmark: str, title: str, model: str, *rates: Json) -> Json:
    fields: dict[str, Any] = {"benchmark": benchmark, "title": title, "model": model, "file": "x", "judge": ["J"], "rule": "strict"}
    return fields | {
        "agg": "any",
        "n": 10,
        "trials": 1,
        "errors": 0,
        "unscored": 0,
        "rates": list(rates),
        "warnings": [NASTY],
        "power": "p",
    }


SUMMARIES = [
    summary("figstep", "FigStep", "base", rate("attack", 0.6, "down"), rate("attack", 0.5, "down", topic=NASTY)),
    summary("figstep_benign", "FigStep-Benign", "base", rate("refusal", 0.1, "down")),
    summary("figstep", "FigStep", "round/1", rate("attack", 0.2, "down", unscored=2)),
    summary("figstep_benign", "FigStep-Benign", "round/1", rate("refusal", 0.3, "down")),
]


def test_safety_is_drawn_against_its_harmless_partner(tmp_path: Path) -> None:
    html = card(SUMMARIES, records(tmp_path))
    # 1 - 0.6 to the right of 40 on 280, 1 - 0.1 up from 290 on 280.
    assert '<circle class="dot " cx="152.0" cy="38.0" r="5"><title>base: safe 40.0 %, helpful 90.0 %</title>' in html
    assert "round/1: safe 80.0 %, helpful 70.0 %" in html
    assert "No harmless partner" not in html
    assert "<script>document" not in html


def test_safety_without_its_harmless_partner_is_reported() -> None:
    html = card(SUMMARIES[:1], [])
    assert "No harmless partner was measured: a model that refuses everything would look as safe" in html
    assert 'class="dot unknown"' in html


def test_nothing_scored_is_not_drawn_as_a_rate() -> None:
    html = card([summary("siuo", "SIUO", "m", rate("safe", None, "up", unscored=10), rate("effective", 0.5, "up"))], [])
    assert '<circle class="dot "' not in html.partition("<section>")[0]
    assert "1 without a scored item is not drawn" in html


def test_dream_view_writes_a_gallery(work: Workdir) -> None:
    work.write("rows.jsonl", [{"id": f"r{i}", "prompt": "x"} for i in range(5)])
    ran = work.dream("view", "rows.jsonl", "--html", "out.html", "-n", "2", "--where", "id <> 'r0'")
    assert (ran.code, ran.out, ran.err) == (0, "", "dream view: out.html has 2 of 4 records; more with --limit, page by page with --port\n")
    html = (work.path / "out.html").read_text()
    assert re.findall("<h3>(r.)</h3>", html) == ["r1", "r2"]
    refused = work.dream("view", "rows.jsonl", "--html", "no/out.html")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_pages_are_filtered_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [r.to_dict() for r in records(tmp_path)[:4]] + [{"id": f"x{i}", "prompt": "more"} for i in range(30)]
    import json

    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_tables(str(path)) as tables:
        pages = Pages(tables, Selection(where="id <> 'x0'"))

        def ids(**query: str) -> list[str]:
            return re.findall("<h3>(\\w+)</h3>", pages.page(query))[:-1]

        assert ids()[:5] == ["a", "b", "c", "d", "x1"]
        assert "page 1 of 2" in pages.page({})
        assert ids(page="2")[-1] == "x29"
        assert ids(categories="Violence") == ["b", "c"]
        assert ids(low="0.5") == ["a"]
        assert ids(outcomes="error") == ["d"]
        assert ids(outcomes="unscored") == ["c"]
        assert ids(q="PROMPT of b") == ["b"]
        assert ids(categories="' or true --") == []
        assert ids(low="1 or true", page="first", outcomes="drop")[:1] == ["a"]


def test_values_of_a_query_never_become_code() -> None:
    wanted = dict.fromkeys(("q", "categories", "sources", "outcomes", "low", "high"), "") | {
        "sources": "'; drop",
        "high": "1e3",
        "low": "nan()",
    }
    assert condition(None, wanted) == "observations.source = '''; drop' AND responses.score <= 1000.0"


TWO_SCORES = {
    "id": "two",
    "prompt": "x",
    "responses": [{"text": str(score), "judgement": {"global_score": 5.0, "recognised": [], "score": score}} for score in (0.2, 0.9)],
}
# The limits of a filter, and whether the record with the scores 0.2 and 0.9 is within them.
LIMITS = [("", "", True), ("0.5", "", True), ("", "0.5", True), ("0.5", "0.6", False), ("0.95", "", False), ("0.9", "0.9", True)]


def test_a_served_record_has_one_score_within_the_limits(work: Workdir) -> None:
    work.write("rows.jsonl", [TWO_SCORES])
    with open_tables(str(work.path / "rows.jsonl")) as tables:
        pages = Pages(tables, Selection())
        shown = [(low, high, "<h3>two</h3>" in pages.page({"low": low, "high": high})) for low, high, _ in LIMITS]
    assert shown == LIMITS


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium to look at the page with; apt-get install chromium")
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


SHOWN = "[...document.querySelectorAll('.item')].filter(i => i.offsetParent).map(i => i.querySelector('h3').textContent).join('')"


def pick(window: Page, name: str, value: str) -> str:
    window.run(
        f"{{const e = document.querySelector('[name={name}]'); e.value = '{value}'; e.dispatchEvent(new Event('input', {{bubbles: true}}))}}"
    )
    return str(window.run(SHOWN))


def test_a_record_in_a_file_has_one_score_within_the_limits(window: Page, tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    path.write_text(page("rows.jsonl", shown_records([(1, Record.from_dict(TWO_SCORES))]), 1), "utf-8")
    window.open(f"file://{path}")
    shown = [(low, high, (pick(window, "low", low), pick(window, "high", high))[1] == "two") for low, high, _ in LIMITS]
    assert shown == LIMITS
    assert window.complaints == []


def test_a_browser_renders_filters_and_fetches_nothing(window: Page, tmp_path: Path) -> None:
    path = gallery(tmp_path)
    window.open(f"file://{path}")
    assert window.run(SHOWN) == "abcde"
    assert pick(window, "categories", "Violence") == "bc"
    assert pick(window, "outcomes", "unscored") == "c"
    assert pick(window, "categories", "") + pick(window, "outcomes", "") == "cabcde"
    assert pick(window, "low", "0.5") == "a"
    assert pick(window, "low", "") == "abcde"
    assert pick(window, "q", "gone.PNG") == "e"
    assert window.run("document.querySelector('.count').textContent") == "1 of 5 items"
    assert window.run("document.title") == "<rows>.jsonl"
    assert [url for url in window.requests if not url.startswith("data:")] == [f"file://{path}"]
    assert window.complaints == []


def test_text_and_pictures_are_blurred_until_clicked(window: Page, tmp_path: Path) -> None:
    window.open(f"file://{gallery(tmp_path)}")
    window.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    blurred = "[...document.querySelectorAll('.veil > *')].filter(e => getComputedStyle(e).filter !== 'none').length"
    veils = window.run("document.querySelectorAll('.veil').length")
    assert window.run(blurred) == veils > 10
    window.run("document.querySelector('figure.veil').click()")
    assert window.run(blurred) == veils - 1
    window.press("j")
    window.press("v")
    assert window.run("document.activeElement.querySelectorAll('.veil:not(.open)').length") == 0
    window.press("v")
    assert window.run("document.activeElement.querySelectorAll('.veil.open').length") == 0
    button = "document.querySelector('#blur').textContent"
    assert window.run(button) == "Unblur all"
    window.press("b")
    assert window.run(blurred) == 0
    assert window.run(button) == "Blur all"
    window.run("document.querySelector('#blur').click()")
    assert (window.run(blurred), window.run(button)) == (veils, "Unblur all")
    window.press("/")
    assert window.run("document.activeElement.name") == "q"


@pytest.mark.parametrize("width", [360, 1280])
def test_a_card_fits_phone_and_desktop(window: Page, tmp_path: Path, width: int) -> None:
    path = tmp_path / "card.html"
    path.write_text(card(SUMMARIES, [*records(tmp_path), Record(prompt="p", images=(Image("gone.png"),))]), "utf-8")
    window.open(f"file://{path}", width)
    assert window.run("document.documentElement.scrollWidth <= innerWidth")
    assert window.run("document.querySelectorAll('.chart svg circle').length") > 4
    assert pick(window, "categories", "Privacy") == "a"
    assert window.run("document.title") == "FigStep and FigStep-Benign"
    assert [url for url in window.requests if not url.startswith("data:")] == [f"file://{path}"]
    assert window.complaints == []


def test_a_card_names_and_numbers_its_models(tmp_path: Path) -> None:
    names = [f"organisation/a-model-with-a-long-name-aligned/checkpoint-{step}" for step in (100, 200)]
    rates = [summary("siuo", "SIUO", name, rate("safe", 0.5, "up"), rate("effective", 0.5, "up")) for name in names]
    html = card(rates, [])
    legend = re.search(r'<ol class="models">(.+?)</ol>', html, re.DOTALL)
    assert legend
    assert re.findall(r"<span>(.+?)</span>", legend[1]) == names
    # Two models at one point: their numbers stand in two corners of it, and no line suggests that one came from the other.
    numbers = re.findall(r'<text class="name" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">(\d)</text>', html)
    assert numbers == [("188.0", "143.0", "start", "1"), ("172.0", "143.0", "end", "2")]
    assert "<polyline" not in html


def test_an_interval_has_its_numbers(tmp_path: Path) -> None:
    html = card([summary("siuo", "SIUO", "m", rate("safe", 0.6, "up"), rate("effective", None, "up", unscored=10))], [])
    assert re.findall(r"<span>([\d.]+ to [\d.]+)</span>", html) == ["50.0 to 70.0"]


def test_the_number_in_the_corner_has_a_name() -> None:
    judged = [{"text": "y", "judgement": {"rubric": "sum/expected", "global_score": 5.0, "score": score}} for score in (0.9, 0.1)]
    rows = [Record.from_dict({"id": f"r{n}", "prompt": "x", "responses": judged[:n]}) for n in (1, 2)]
    html = page("rows.jsonl", shown_records(enumerate(rows, 1)), 2)
    corners = re.findall(r'<span class="score number small"><span class="quiet">([\w ]+)</span> ([\d.]+)</span>', html)
    assert corners == [("score", "0.90"), ("lowest score", "0.10")]


def test_a_server_answers_this_machine_only(work: Workdir) -> None:
    import http.client
    import subprocess

    work.write("rows.jsonl", [{"id": "a", "prompt": "x"}])
    command = work.command("view", "rows.jsonl", "--port", "0")
    with subprocess.Popen(command, cwd=work.path, env=work.env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            address = re.fullmatch(r"dream view: http://127\.0\.0\.1:(\d+)/([\w-]{32})/ until Ctrl-C\n", line)
            assert address, line

            def ask(path: str, host: str) -> tuple[int, str, str | None]:
                connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=60)
                connection.request("GET", path, headers={"Host": host})
                answer = connection.getresponse()
                body = answer.read().decode()
                connection.close()
                return answer.status, body, answer.headers["Cache-Control"]

            here, page = f"127.0.0.1:{address[1]}", f"/{address[2]}/"
            status, body, cached = ask(f"{page}?q=x", here)
            assert (status, cached) == (200, "no-store")
            assert "<h3>a</h3>" in body
            assert ask(page, f"evil.example:{address[1]}")[0] == 403
            assert ask(f"{page}rows.jsonl", f"localhost:{address[1]}")[0] == 404
            for wrong in ("/", "/?q=x", "/rows.jsonl", page[:-2] + "/", f"/x{page}", "//", "/%C3%A9/"):
                assert ask(wrong, here)[0] == 403
            # Pages beyond the last one, also as numbers of more digits than Python converts.
            for number in ("2", "9" * 9, "9" * 5000):
                status, body, _ = ask(f"{page}?page={number}", here)
                assert (status, "<h3>a</h3>" in body) == (200, True)
            assert ask(f"{page}?page=0", here)[0] == ask(f"{page}?page=%D9%A1", here)[0] == 200
        finally:
            process.terminate()
