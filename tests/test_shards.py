"""Many files in one run: what a word stands for, the outputs in a folder, finished shards, parts of the work, and URLs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream_cli.errors import UsageError
from dream_cli.formats.sources import read_shards
from dream_cli.records.outputs import open_writer
from dream_cli.records.shards import Part, expanded, plan
from tests.record_files import lines


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of two files with three prompts each, and a file that is none of records; the current folder is above it."""
    (tmp_path / "in").mkdir()
    for name in "ab":
        lines(tmp_path / "in" / f"{name}.jsonl", *({"id": f"{name}{i}", "prompt": "How do I bake bread?"} for i in range(3)))
    (tmp_path / "in" / "notes.txt").write_text("no records")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def ids(words: list[str], part: Part | None = None) -> list[str | None]:
    return [record.id for record in read_shards(expanded(words), part=part)]


@pytest.mark.parametrize("words", [["in"], ["in/"], ["in/*.jsonl"], ["in/a.jsonl", "in/b.jsonl"], ["in/[ab].jsonl"]])
def test_a_folder_a_glob_and_several_files_are_read_in_order(words: list[str], shards: Path) -> None:
    assert ids(words) == ["a0", "a1", "a2", "b0", "b1", "b2"]


def test_a_part_is_every_nth_file_or_record(shards: Path) -> None:
    assert ids(["in"], Part(1, 2)) == ["b0", "b1", "b2"]
    assert [ids(["in/a.jsonl"], Part(index, 2)) for index in (0, 1)] == [["a0", "a2"], ["a1"]]


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "1/0", "0/x", "1/2/3"])
def test_a_part_is_read_strictly(text: str) -> None:
    with pytest.raises(UsageError, match="is not I/N with I from 0 to N - 1"):
        Part.read(text)


def test_the_part_of_a_slurm_array() -> None:
    task = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_STEP": "2"}
    assert Part.of_array(task) == Part(2, 4)
    assert Part.of_array({**task, "SLURM_ARRAY_TASK_COUNT": "1"}) is None
    assert Part.of_array({}) is None


def test_each_file_has_an_output_of_its_name(shards: Path) -> None:
    assert [(s.source, s.out) for s in plan(expanded(["in"]), "out/")] == [("in/a.jsonl", "out/a.jsonl"), ("in/b.jsonl", "out/b.jsonl")]
    (one,) = plan(["in/a.jsonl"], "out", Part(2, 8))
    assert (one.out, one.part) == ("out/a-00002-of-00008.jsonl", Part(2, 8))


def test_two_files_of_one_name_are_refused(shards: Path) -> None:
    (shards / "other").mkdir()
    lines(shards / "other" / "a.jsonl", {"prompt": "x"})
    with pytest.raises(UsageError, match="in/a.jsonl and other/a.jsonl have the same name"):
        plan(expanded(["in", "other"]), "out")


def test_a_folder_that_holds_something_else_is_refused(shards: Path) -> None:
    with pytest.raises(UsageError, match=r"-o in holds notes\.txt|in/a\.jsonl would be its own output"):
        plan(expanded(["in"]), "in")
    (shards / "out").mkdir()
    (shards / "out" / "thesis.pdf").touch()
    with pytest.raises(UsageError, match=r"-o out holds thesis\.pdf, which is not an output of these files"):
        plan(expanded(["in"]), "out")


def test_a_folder_of_tars_is_read_as_samples_and_written_as_jsonl(shards: Path) -> None:
    (shards / "tars").mkdir()
    for name, key in (("000.tar", "a"), ("001.tar.gz", "b")):
        (shards / f"{key}.json").write_text(json.dumps({"prompt": f"What is {key}?"}))
        with tarfile.open(shards / "tars" / name, "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(shards / f"{key}.json", f"{key}.json")
    files = expanded(["tars"])
    assert [record.prompt for record in read_shards(files)] == ["What is a?", "What is b?"]
    assert expanded(["tars/*"]) == files
    assert [shard.out for shard in plan(files, "out")] == ["out/000.jsonl", "out/001.jsonl"]
    (one,) = plan(files[:1], "parts", Part(0, 2))
    assert one.out == "parts/000-00000-of-00002.jsonl"


@pytest.mark.parametrize("word", ["in/*.parquet", "empty"])
def test_words_without_a_file_of_records_are_refused(word: str, shards: Path) -> None:
    (shards / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file of records"):
        expanded([word])


def test_a_url_is_read_and_written_whole_or_not_at_all(shards: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    with open_writer("memory://set/out/a.jsonl") as writer:
        for record in read_shards(["in/a.jsonl"]):
            writer.write(record)
    assert files.cat("/set/out/a.jsonl") == (shards / "in" / "a.jsonl").read_bytes()
    with pytest.raises(KeyboardInterrupt), open_writer("memory://set/out/b.jsonl"):
        raise KeyboardInterrupt
    assert not files.exists("/set/out/b.jsonl")
    with open_writer("memory://set/out/c.parquet") as writer:
        for record in read_shards(["in/b.jsonl"]):
            writer.write(record)
    assert ids(["memory://set/out/"]) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert ids(["memory://set/out/*.parquet"]) == ["b0", "b1", "b2"]
    with pytest.raises(UsageError, match="memory://set/none.jsonl does not exist"):
        expanded(["memory://set/none.jsonl"])


def test_a_url_without_its_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[remote\]'"):
        expanded(["s3://bucket/a.jsonl"])


def test_a_url_without_the_package_of_its_service_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"Install s3fs to access S3\); .*pip install '\.\[remote\]'"):
        expanded(["s3://bucket/*.jsonl"])
    with pytest.raises(UsageError, match=r"install the package that is named, or download the file"):
        expanded(["gs://bucket/*.jsonl"])


def dream(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "DREAM_STORE"} | environment
    return subprocess.run([sys.executable, "-m", "dream_cli", *args], capture_output=True, text=True, env=variables, check=False)


@pytest.mark.local
def test_a_stage_writes_one_output_per_file_and_skips_finished_ones(shards: Path) -> None:
    pytest.importorskip("torch")
    first = dream("sample", "in", "-n", "1", "-o", "out/")
    assert (first.returncode, first.stdout) == (1, "")  # the small world of the embedded model knows no bread
    assert first.stderr.startswith("dream sample: 2 files: 0 finished before, 2 to do\n")
    names = ["a.jsonl", "a.jsonl.calls.sqlite", "b.jsonl", "b.jsonl.calls.sqlite"]
    assert sorted(path.name for path in (shards / "out").iterdir()) == names
    assert [json.loads(line)["id"] for line in (shards / "out" / "b.jsonl").read_text().splitlines()] == ["b0", "b1", "b2"]
    before = (shards / "out" / "b.jsonl").read_bytes()
    (shards / "out" / "b.jsonl").unlink()
    again = dream("sample", "in", "-n", "1", "-o", "out", SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_TASK_MIN="0", SLURM_ARRAY_TASK_COUNT="2")
    assert again.stderr.startswith("dream sample: 1 file of shard 1/2: 0 finished before, 1 to do\n")
    assert (shards / "out" / "b.jsonl").read_bytes() == before
    assert dream("sample", "in", "-n", "1", "-o", "out/").stderr == "dream sample: 2 files: 2 finished before, 0 to do\n"


@pytest.mark.parametrize(
    ("stage", "row", "lacking"),
    [
        ("sample", "hi", "is not a record"),
        ("sample", '{"id": "b0", "prompt": "bread", "observations": []}', "has no responses"),
        ("disentangle", '{"id": "b0", "prompt": "bread", "response": "Bake it."}', "has no observations"),
        ("judge", '{"id": "b0", "prompt": "bread", "response": "Bake it."}', "has no scores"),
    ],
)
def test_a_file_that_the_stage_has_not_written_is_not_taken_for_finished(stage: str, row: str, lacking: str, shards: Path) -> None:
    (shards / "out").mkdir()
    (shards / "out" / "a.jsonl").write_text(row + "\n")
    refused = dream(stage, "in", "-o", "out/")
    assert (refused.returncode, refused.stderr) == (
        2,
        (
            f"dream: out/a.jsonl is not an output of dream {stage}: its first row {lacking}, so it would be skipped as finished; "
            "name another folder with -o, or delete the file\n"
        ),
    )
    assert (shards / "out" / "a.jsonl").read_text() == row + "\n"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket of an S3 server on this machine."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("set")
    yield "s3://set"
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_files_in_s3_are_read_and_written(bucket: str, shards: Path) -> None:
    for name in ("a.jsonl", "b.parquet"):
        with open_writer(f"{bucket}/in/{name}") as writer:
            for record in read_shards([f"in/{name[0]}.jsonl"]):
                writer.write(record)
    assert ids([f"{bucket}/in/"]) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert [shard.is_finished for shard in plan(expanded([f"{bucket}/in/"]), f"{bucket}/out/")] == [False, False]
    with open_writer(f"{bucket}/out/a.jsonl") as writer:
        for record in read_shards(expanded([f"{bucket}/in/*.jsonl"])):
            writer.write(record)
    assert [shard.is_finished for shard in plan(expanded([f"{bucket}/in/"]), f"{bucket}/out/")] == [True, False]
    with pytest.raises(UsageError, match=r"s3://nobody/a\.jsonl does not exist|s3://nobody/a\.jsonl cannot be reached"):
        expanded(["s3://nobody/a.jsonl"])
