"""The output of dream convert, read by the real readers of other tools.

TRL and datasets are tested here. ms-swift and LLaMA-Factory pin other versions and need environments of their own:

    python -m venv $DREAM_READERS/swift && $DREAM_READERS/swift/bin/pip install torch==2.13.0 ms-swift==4.6.0
    python -m venv $DREAM_READERS/llamafactory && $DREAM_READERS/llamafactory/bin/pip install torch==2.13.0 llamafactory==0.9.5
    $DREAM_READERS/llamafactory/bin/pip uninstall -y torchvision torchaudio    # builds for CUDA, which do not load on a CPU
    DREAM_READERS=/tmp/readers pytest -m readers tests/test_readers.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dream_cli.formats.converting import Conversion, convert
from dream_cli.formats.sources import Source
from tests.conftest import Workdir

RECORDS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "What is in this picture?", "images": ["a.png"], "response": "A harmless drawing of a house."},
    {"id": "b", "prompt": "Yes or no?", "images": ["a.png", "b.png"], "response": "Yes."},
    {"id": "c", "prompt": "What is in no picture?", "response": "No."},
]
CHATS = [
    {
        "id": row["id"],
        "images": row.get("images", []),
        "messages": [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": row["response"]},
        ],
    }
    for row in RECORDS
]
PAIRS = [
    {k: v for k, v in row.items() if k != "response"} | {"chosen": row["response"], "rejected": "Hm.", "margin": 0.5} for row in RECORDS
]
# Pairs of one question to one image.
SINGLE = [{**PAIRS[0], "id": name} for name in ("a", "b")]


@pytest.fixture
def made(work: Workdir) -> Workdir:
    """A folder with the records, written as the user has them."""
    work.picture("a.png", 32)
    work.picture("b.png", 40)
    for name, rows in (("answers", RECORDS), ("chats", CHATS), ("pairs", PAIRS), ("single", SINGLE)):
        work.write(f"{name}.jsonl", rows)
    return work


def converted(work: Workdir, name: str, form: str, suffix: str) -> str:
    # In this process: a hundred files are written here.
    out = str(work.path / f"{name}-{form}{suffix}")
    receipt = convert(Source(str(work.path / f"{name}.jsonl")), out, Conversion(target=form))
    assert not receipt.errors, receipt.report(form)
    return out


def loaded(path: str, kind: str) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset(kind, data_files=path, split="train", cache_dir=os.path.dirname(path) + "/cache")


@pytest.mark.parametrize("form", ["dream", "trl", "swift", "llamafactory", "alpaca"])
@pytest.mark.parametrize("name", ["answers", "chats", "pairs"])
def test_datasets_shows_the_images_of_a_parquet_file(made: Workdir, name: str, form: str) -> None:
    rows = loaded(converted(made, name, form, ".parquet"), "parquet")
    assert [[image.size for image in row["images"] or ()] for row in rows] == [[(32, 32)], [(32, 32), (40, 40)], []]


@pytest.mark.parametrize("form", ["spa-vl", "rlaif-v"])
def test_datasets_shows_the_image_of_a_pair(made: Workdir, form: str) -> None:
    rows = loaded(converted(made, "single", form, ".parquet"), "parquet")
    assert [(row["image"].size, row["question"], row["chosen"]) for row in rows] == [
        ((32, 32), "What is in this picture?", "A harmless drawing of a house.")
    ] * 2


def test_datasets_loads_the_folder_unchanged(made: Workdir) -> None:
    datasets = pytest.importorskip("datasets")
    assert made.dream("convert", "pairs.jsonl", "--to", "trl", "-o", "set/").code == 0
    loaded = datasets.load_dataset(str(made.path / "set"), cache_dir=str(made.path / "cache"))
    assert list(loaded) == ["train"] and loaded["train"][0]["images"][0].size == (32, 32)
    assert loaded["train"][0]["chosen"] == [{"role": "assistant", "content": "A harmless drawing of a house."}]


@pytest.mark.local
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "suffix"), [("answers", ".parquet"), ("chats", ".parquet"), ("answers", ".jsonl"), ("chats", ".jsonl")])
def test_sft_of_trl_learns_from_the_rows(made: Workdir, llava: str, name: str, suffix: str) -> None:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = shown(converted(made, name, "trl", suffix))
    trainer = SFTTrainer(llava, args=SFTConfig(**settings(made.path)), train_dataset=rows)
    assert trainer.train().training_loss > 0


@pytest.mark.local
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_dpo_of_trl_learns_from_the_rows(made: Workdir, llava: str, suffix: str) -> None:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    rows = shown(converted(made, "pairs", "trl", suffix))
    trainer = DPOTrainer(llava, args=DPOConfig(**settings(made.path)), train_dataset=rows)
    # With the reference the policy itself, the first loss is ln 2.
    assert trainer.train().training_loss == pytest.approx(0.6931, abs=1e-3)


def shown(path: str) -> Any:
    datasets = pytest.importorskip("datasets")
    rows = loaded(path, "parquet" if path.endswith(".parquet") else "json")
    return rows if path.endswith(".parquet") else rows.cast_column("images", datasets.List(datasets.Image()))


def settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "trained"),
        "per_device_train_batch_size": 3,
        "max_steps": 1,
        "max_length": None,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny random LLaVA."""
    from tests import zoo

    return str(zoo.build("llava", tmp_path_factory.mktemp("zoo")))


# In environments of their own

SWIFT = """
import json, sys
from swift.dataset import load_dataset
from swift.template.vision_utils import load_image
for path in sys.argv[1:]:
    rows, _ = load_dataset([path], split_dataset_ratio=0.0, strict=True)
    for row in rows:
        sizes = [load_image(image["bytes"] or image["path"]).size for image in row["images"] or ()]
        print(json.dumps([path, row["messages"], row.get("rejected_response"), sizes]), file=sys.stderr)
"""
LLAMAFACTORY = """
import json, sys, types, transformers
sys.modules["torchaudio"] = types.ModuleType("torchaudio")
from llamafactory.data.loader import _get_merged_dataset
from llamafactory.data.mm_plugin import get_mm_plugin
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import Seq2SeqTrainingArguments
folder = sys.argv[1]
training = Seq2SeqTrainingArguments(output_dir=folder + "/out", use_cpu=True)
plugin = get_mm_plugin("qwen2_vl", image_token="<image>")
for name in sys.argv[2:]:
    data = DataArguments(dataset=name, dataset_dir=folder, template="qwen2_vl")
    stage = "rm" if name.startswith("pairs") else "sft"
    for row in _get_merged_dataset([name], ModelArguments(model_name_or_path="none"), data, training, stage):
        read = plugin._regularize_images(row["_images"] or [], image_max_pixels=10**6, image_min_pixels=0)["images"]
        print(json.dumps([name, row["_prompt"], row["_response"], [image.size for image in read]]), file=sys.stderr)
"""


def run_script(made: Workdir, environment: str, script: str, *args: str) -> list[Any]:
    """Run a script in another environment and return the rows that it read."""
    python = Path(os.environ.get("DREAM_READERS", ""), environment, "bin", "python")
    if "DREAM_READERS" not in os.environ or not python.is_file():
        pytest.skip(f"no environment of {environment} (see the head of this file)")
    env = made.env | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(made.path / "hf"), "MODELSCOPE_CACHE": str(made.path / "ms")}
    env |= {"DISABLE_VERSION_CHECK": "1", "HF_DATASETS_CACHE": str(made.path / "cache")}
    ran = subprocess.run([str(python), "-c", script, *args], check=False, capture_output=True, text=True, cwd="/", env=env, timeout=3600)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return [json.loads(line) for line in ran.stderr.splitlines() if line.startswith('["')]


PLACES = {"a": "<image>", "b": "<image><image>", "c": ""}
SIZES = {"a": [[32, 32]], "b": [[32, 32], [40, 40]], "c": []}


def expected(name: str) -> list[tuple[list[dict[str, str]], str, list[list[int]]]]:
    """What a reader should have read: the prompt's messages, the answer, and the sizes of the images."""
    rows = []
    for row in RECORDS:
        messages = [{"role": "user", "content": PLACES[row["id"]] + row["prompt"]}]
        more = [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}]
        rows.append((messages + (more if name == "chats" else []), row["response"], SIZES[row["id"]]))
    return rows


NAMES = ("answers", "chats", "pairs")
SUFFIXES = (".jsonl", ".json", ".parquet")


@pytest.mark.readers
def test_ms_swift_reads_every_kind_of_file(made: Workdir) -> None:
    files = {converted(made, name, "swift", suffix): name for name in NAMES for suffix in SUFFIXES}
    rows = run_script(made, "swift", SWIFT, *files)
    assert rows == [
        [file, [*messages, {"role": "assistant", "content": answer}], "Hm." if name == "pairs" else None, sizes]
        for file, name in files.items()
        for messages, answer, sizes in expected(name)
    ]


@pytest.mark.readers
def test_llamafactory_reads_every_kind_of_file(made: Workdir) -> None:
    forms = ("llamafactory", "alpaca")
    files = {f"{name}{suffix[1:]}-{form}": name for name in NAMES for form in forms for suffix in SUFFIXES}
    for name in NAMES:
        for suffix in SUFFIXES:
            # An entry of dataset_info.json is named by the file without its suffix.
            made.write(f"{name}{suffix[1:]}.jsonl", made.read(f"{name}.jsonl"))
            for form in forms:
                converted(made, f"{name}{suffix[1:]}", form, suffix)
    rejected = [{"role": "assistant", "content": "Hm."}]
    assert run_script(made, "llamafactory", LLAMAFACTORY, str(made.path), *files) == [
        [file, messages, [{"role": "assistant", "content": answer}, *(rejected if name == "pairs" else [])], sizes]
        for file, name in files.items()
        for messages, answer, sizes in expected(name)
    ]
