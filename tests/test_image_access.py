"""Which image files the rows of a file may name, and how that is carried through pipes and outputs."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dream_cli.records.origins import folders_of, key_of, note
from tests.conftest import Workdir
from tests.loopback import Loopback

SECRET = "CANARY in a private key"


@pytest.fixture
def folders(work: Workdir) -> Workdir:
    """Return a folder with a picture, a text, and `d/` with a file of records in it and a symbolic link out of it."""
    (work.path / "d" / "sub").mkdir(parents=True)
    for name in ("out.png", "d/in.png", "d/sub/deep.png"):
        work.picture(name)
    (work.path / "id_rsa").write_text(SECRET)
    (work.path / "d" / "link.png").symlink_to(work.path / "out.png")
    return work


def ask(server: Loopback) -> tuple[str, ...]:
    return ("--base-url", server.url, "--no-store", "-q")


def rows(work: Workdir, *images: str) -> None:
    work.write("d/in.jsonl", [{"id": str(i), "prompt": "What is it?", "images": [image]} for i, image in enumerate(images)])


def test_an_image_outside_the_folder_of_the_file_is_refused(folders: Workdir, server: Loopback) -> None:
    outside = ["../out.png", str(folders.path / "out.png"), "link.png", "sub/../../out.png", f"file://{folders.path}/out.png"]
    rows(folders, "in.png", "sub/deep.png", str(folders.path / "d" / "in.png"), *outside)
    ran = folders.dream("sample", "d/in.jsonl", *ask(server))
    assert ran.code == 1
    messages = [row.get("error", {}).get("message") for row in ran.rows]
    assert messages[:3] == [None, None, None]
    assert len(messages) == 8
    for message in messages[3:]:
        assert f"lies outside {folders.path.resolve()}/d; name the folder of the images with --image-root DIR" in message
    assert server.calls == 3


@pytest.mark.parametrize("options", [("--allow-outside",), ("--image-root", ".")])
def test_the_user_can_allow_it(options: tuple[str, ...], folders: Workdir, server: Loopback) -> None:
    rows(folders, "../out.png", str(folders.path / "out.png"), "link.png", "in.png")
    ran = folders.dream("sample", "d/in.jsonl", *options, *ask(server))
    assert (ran.code, server.calls) == (0, 4)


def test_the_folder_of_images_is_where_relative_paths_start_first(folders: Workdir, server: Loopback) -> None:
    rows(folders, "out.png", "in.png")
    ran = folders.dream("sample", "d/in.jsonl", "--image-root", ".", *ask(server))
    assert [row["images"][0] for row in ran.rows] == [str(folders.path / "out.png"), str(folders.path / "d" / "in.png")]
    assert ran.code == 0


def test_of_stdin_images_lie_in_the_current_folder(folders: Workdir, server: Loopback, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.png"
    elsewhere.write_bytes((folders.path / "out.png").read_bytes())
    lines = [json.dumps({"id": name, "prompt": "What?", "images": [name]}) for name in ("out.png", "d/in.png", str(elsewhere))]
    ran = folders.dream("sample", *ask(server), stdin="\n".join(lines))
    assert [row.get("error", {}).get("kind") for row in ran.rows] == [None, None, "image"]


def test_retrying_an_error_does_not_open_the_folder(folders: Workdir, server: Loopback) -> None:
    rows(folders, "../out.png")
    folders.dream("sample", "d/in.jsonl", "-o", "d/out.jsonl", *ask(server))
    ran = folders.dream("sample", "d/out.jsonl", "--retry-errors", *ask(server))
    assert ran.code == 1 and "lies outside" in ran.rows[0]["error"]["message"]
    assert server.calls == 0


def test_a_pipe_of_commands_carries_where_the_images_may_lie(folders: Workdir, server: Loopback) -> None:
    rows(folders, "in.png", "../out.png")
    (folders.path / "here").mkdir()
    command = " ".join(folders.command())
    options = " ".join(ask(server))
    script = f"{command} sample ../d/in.jsonl {options} | {command} sample {options}"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, cwd=folders.path / "here", env=folders.env, timeout=300)
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["responses"] and "error" not in first
    # What the first command refused, the second does not read either.
    assert second["error"]["kind"] == "image"
    done = subprocess.run(
        ["bash", "-c", f"{command} pair ../d/in.jsonl -q | cat - ../d/in.jsonl | {command} sample {options}"],
        check=False,
        capture_output=True,
        cwd=folders.path / "here",
        env=folders.env,
        timeout=300,
    )
    # `cat` is none of ours: its records name images from the current folder.
    assert [json.loads(line)["error"]["kind"] for line in done.stdout.splitlines()] == ["image", "image"]


def test_a_note_that_another_command_removes_meanwhile_keeps_no_note_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_STORE", str(tmp_path / "calls.sqlite"))
    old, gone, output = tmp_path / "origins" / "pipe-1", tmp_path / "origins" / ".pipe-2.tmp", tmp_path / "out.jsonl"
    old.parent.mkdir()
    old.write_text("[]")
    os.utime(old, (0, 0))
    gone.symlink_to(tmp_path / "renamed")  # listed, and not there when its age is looked up
    output.write_text("{}")
    note(str(output), ["/pictures"])
    assert folders_of(str(key_of(str(output)))) == ("/pictures",)
    assert not old.exists()


@pytest.mark.parametrize("redirected", [False, True])
def test_an_output_elsewhere_goes_on_naming_its_images(redirected: bool, folders: Workdir, server: Loopback) -> None:
    rows(folders, "in.png")
    (folders.path / "o").mkdir()
    out = folders.path / "o" / "sampled.jsonl"
    if redirected:
        with out.open("wb") as file:
            command = folders.command("sample", "d/in.jsonl", *ask(server))
            subprocess.run(command, check=True, stdout=file, cwd=folders.path, env=folders.env, timeout=300)
    else:
        assert folders.dream("sample", "d/in.jsonl", "-o", str(out), *ask(server)).code == 0
    assert folders.dream("sample", "o/sampled.jsonl", *ask(server)).code == 0
    # A file that somebody else has written since is like any other.
    text = out.read_text()
    out.write_text(text + text)
    assert folders.dream("sample", "o/sampled.jsonl", *ask(server)).code == 1
    assert folders.dream("sample", "o/sampled.jsonl", "--image-root", "d", *ask(server)).code == 0


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("convert", "d/in.jsonl", "-o", "o.parquet"), "o.parquet"),
        (("convert", "d/in.jsonl", "--to", "trl", "-o", "set/"), "set/data/train.parquet"),
        (("convert", "d/in.jsonl", "--images", "inline", "-o", "o.jsonl"), "o.jsonl"),
        (("convert", "d/in.jsonl", "--to", "openai", "-o", "o.jsonl"), "o.jsonl"),
        (("convert", "d/in.jsonl", "--to", "swift", "--images", "inline", "-o", "o.jsonl"), "o.jsonl"),
        (("pair", "d/in.jsonl", "-o", "o.parquet"), "o.parquet"),
    ],
)
@pytest.mark.parametrize("name", ["../id_rsa", "inside.txt"])
def test_a_file_that_is_no_image_is_never_copied(command: tuple[str, ...], out: str, name: str, folders: Workdir) -> None:
    (folders.path / "d" / "inside.txt").write_text(SECRET)
    judged = [
        {"text": text, "judgement": {"rubric": "global/expected", "score": score, "global_score": 10 * score}}
        for text, score in (("I see a key and would keep it private.", 0.9), ("No idea at all what this may be.", 0.1))
    ]
    row = {"id": "a", "prompt": "What?", "images": [name], "responses": judged}
    if command[0] == "convert":
        row |= {"chosen": "a b", "rejected": "c d"}
        del row["responses"]
    folders.write("d/in.jsonl", [row])
    ran = folders.dream(*command)
    written = b"".join(
        path.read_bytes() for path in folders.path.rglob("*") if path.is_file() and path.name not in ("id_rsa", "inside.txt")
    )
    assert SECRET.encode() not in written
    assert base64.b64encode(SECRET.encode())[:20] not in written
    assert "Traceback" not in ran.err
    assert (
        ("stay as given: 1" in ran.err or "1 image is not embedded and stay as given" in ran.err) if ran.code == 0 else "image" in ran.err
    )
    assert ran.code == 1 or (folders.path / out).exists()


def test_extracted_records_and_images_are_one_folder_that_can_be_copied(
    folders: Workdir, server: Loopback, tmp_path_factory: pytest.TempPathFactory
) -> None:
    inline = "data:image/png;base64," + base64.b64encode((folders.path / "d" / "in.png").read_bytes()).decode()
    rows(folders, "in.png", "sub/deep.png", inline)
    (folders.path / "set").mkdir()
    assert folders.dream("convert", "d/in.jsonl", "--images", "extract", "-q", "-o", "set/records.jsonl").code == 0
    images = [row["images"][0] for row in folders.read("set/records.jsonl")]
    assert all(image.startswith("images/") for image in images)
    copied = tmp_path_factory.mktemp("copy") / "set"
    (folders.path / "set").rename(copied)
    moved = Workdir(copied.parent)
    ran = moved.dream("sample", "set/records.jsonl", *ask(server))
    assert (ran.code, server.calls) == (0, 3)


def test_what_is_no_image_is_not_extracted(folders: Workdir) -> None:
    rows(folders, "../id_rsa", "data:text/html;base64," + base64.b64encode(SECRET.encode()).decode())
    ran = folders.dream("convert", "d/in.jsonl", "--images", "extract", "-o", "set.jsonl")
    assert ran.code == 1 and not (folders.path / "images").exists()
    assert [row["error"]["kind"] for row in folders.read("set.jsonl")] == ["image", "image"]


def test_a_gallery_and_a_summary_read_nothing_outside(folders: Workdir) -> None:
    rows(folders, "in.png", "../out.png")
    summary = json.loads(folders.dream("view", "d/in.jsonl", "--json").out)
    assert (summary["images"]["opened"], summary["images"]["unreadable"]) == (2, 1)
    assert folders.dream("view", "d/in.jsonl", "--html", "g.html").code == 0
    page = (folders.path / "g.html").read_text()
    assert page.count("data:image/jpeg") == 1 and "lies outside" in page


def test_a_note_is_kept_for_the_output_alone(folders: Workdir, server: Loopback) -> None:
    rows(folders, "in.png")
    (folders.path / "o").mkdir()
    folders.dream("sample", "d/in.jsonl", "-o", "o/a.jsonl", *ask(server))
    (folders.path / "o" / "copy.jsonl").write_bytes((folders.path / "o" / "a.jsonl").read_bytes())
    assert folders.dream("sample", "o/a.jsonl", *ask(server)).code == 0
    assert folders.dream("sample", "o/copy.jsonl", *ask(server)).code == 1


def test_a_folder_of_a_data_set_takes_its_extracted_images_in(folders: Workdir) -> None:
    rows(folders, "in.png")
    assert folders.dream("convert", "d/in.jsonl", "--images", "extract", "-q", "-o", "set/").code == 0
    assert len(list((folders.path / "set" / "images").iterdir())) == 1


def test_images_are_shown_to_the_model_in_the_size_asked_for_and_kept_apart_in_the_store(folders: Workdir, server: Loopback) -> None:
    folders.picture("d/large.png", 200)
    rows(folders, "d/large.png".removeprefix("d/"))
    options = ("sample", "d/in.jsonl", "--base-url", server.url, "-q")
    sizes = []
    for more in ((), ("--max-pixels", "900"), ("--max-pixels", "900")):
        assert folders.dream(*options, *more).code == 0
    for body in server.bodies:
        uri = next(part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url")
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
            sizes.append(picture.size)
    assert sizes == [(200, 200), (30, 30)]


def test_a_picture_of_gigapixels_is_refused_before_it_takes_memory(folders: Workdir, server: Loopback) -> None:
    Image.new("L", (30000, 30000)).save(folders.path / "d" / "bomb.png")
    rows(folders, "bomb.png", "in.png")
    script = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, *folders.command("sample", "d/in.jsonl", *ask(server))]
    done = subprocess.run(command, check=False, capture_output=True, cwd=folders.path, env=folders.env, timeout=300)
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert "30000x30000 is more than 50 megapixels" in first["error"]["message"] and second["responses"]
    assert int(done.stderr) < 300_000  # kB; decoded it is 900 MB


def test_a_row_of_parquet_that_unpacks_to_too_much_costs_itself_alone(work: Workdir) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    cells = pa.array([[{"bytes": bytes(70 << 20), "path": None}], []], image)
    pq.write_table(pa.table({"id": ["a", "b"], "prompt": ["x", "y"], "images": cells}), work.path / "in.parquet", compression="zstd")
    ran = work.dream("convert", "in.parquet")
    first, second = ran.rows
    assert first["error"]["message"] == "in.parquet:1: the row is longer than 64 MB (70 MB); keep images in files"
    assert second == {"id": "b", "prompt": "y", "images": []}
