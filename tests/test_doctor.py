"""dream doctor: what is installed, what does not fit, and which engine a model would get."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Workdir


def installed(folder: Path, name: str, version: str, *requires: str) -> None:
    """Make a package look installed, as far as its metadata go."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def findings(work: Workdir, *args: str) -> dict[str, dict[str, str]]:
    return {f["name"]: f for f in json.loads(work.dream("doctor", "--json", *args).out)["findings"]}


def test_the_text_has_its_parts_and_names_the_engine(work: Workdir) -> None:
    ran = work.dream("doctor", "--base-url", "http://127.0.0.1:9/v1")
    assert ran.code == 0 and ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0].startswith("dream ") and [line for line in lines if line and line[0] != " "][1:] == [
        "packages",
        "devices",
        "files",
        "engine",
    ]
    assert lines[-1].split() == ["ok", "http://127.0.0.1:9/v1", "openai:", "a", "server", "is", "named,", "http://127.0.0.1:9/v1"]


def test_how_to_install_an_extra_is_printed_once(work: Workdir) -> None:
    absent = [f for f in findings(work).values() if f["part"] == "packages" and f["state"] == "absent"]
    out = work.dream("doctor").out
    for finding in absent:
        assert re.fullmatch("not installed; extra [a-z]+", finding["detail"])
    assert out.count("pip install '.[EXTRA]'") == (1 if absent else 0)


def test_plug_ins_and_the_call_store_are_named(work: Workdir) -> None:
    points = "[dream.benchmarks]\nmine = mine:MINE\n[dream.formats]\nask = mine:ASK\n"
    for package, text in (("mine", points), ("other", "[dream.formats]\nask = other:ASK\n")):
        installed(work.path / "site", package, "1.0")
        (work.path / "site" / f"{package}-1.0.dist-info" / "entry_points.txt").write_text(text)
    work.env["PYTHONPATH"] = str(work.path / "site")
    (work.path / "calls.sqlite").write_bytes(b"x" * 1_500_000)
    seen = findings(work)
    assert (seen["mine"]["state"], seen["mine"]["detail"]) == ("ok", "dream.benchmarks, of mine 1.0")
    assert (seen["ask"]["state"], seen["ask"]["detail"]) == ("bad", "dream.formats, of mine 1.0 and other 1.0; uninstall one of them")
    assert seen["calls"]["detail"] == f"{work.path}/calls.sqlite (1.5 MB; --store, DREAM_STORE)"


def test_a_torchvision_for_cuda_beside_a_torch_for_cpu_is_told_with_the_mend(work: Workdir) -> None:
    installed(work.path / "site", "torch", "2.13.0+cpu")
    installed(work.path / "site", "torchvision", "0.28.0", "torch==2.13.0")
    work.env["PYTHONPATH"] = str(work.path / "site")
    ran = work.dream("doctor")
    assert ran.code == 1
    assert "bad     torchvision" in ran.out and "pip uninstall torchvision" in ran.out


def test_a_torchvision_of_another_torch_does_not_fit(work: Workdir) -> None:
    installed(work.path / "site", "torch", "2.13.0")
    installed(work.path / "site", "torchvision", "0.27.0", "torch==2.12.0")
    work.env["PYTHONPATH"] = str(work.path / "site")
    assert findings(work)["torchvision"]["detail"] == "0.27.0 needs torch==2.12.0, but 2.13.0 is installed"


def test_a_package_that_is_too_old_is_told(work: Workdir) -> None:
    installed(work.path / "site", "typer", "0.1.0")
    work.env["PYTHONPATH"] = str(work.path / "site")
    assert findings(work)["typer"] == {
        "part": "packages",
        "name": "typer",
        "state": "bad",
        "detail": "0.1.0 is installed, >=0.15 is needed: pip install . in the checkout",
    }


def test_a_gpu_that_torch_cannot_use_is_told(work: Workdir) -> None:
    tool = work.path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB'\n")
    tool.chmod(0o755)
    work.env["PATH"] = f"{tool.parent}:{work.env['PATH']}"
    installed(work.path / "site", "torch", "2.13.0+cpu")
    work.env["PYTHONPATH"] = str(work.path / "site")
    gpu = findings(work)["GPU"]
    assert (gpu["state"], gpu["detail"][:32]) == ("bad", "NVIDIA H100 80GB HBM3, 81559 MiB")


def test_a_model_that_is_not_there_is_bad(work: Workdir) -> None:
    ran = work.dream("doctor", "--model", "./nowhere")
    assert ran.code == 1 and "bad" in ran.out.splitlines()[-1]


@pytest.mark.local
def test_torch_itself_is_asked_in_a_process_of_its_own(work: Workdir) -> None:
    assert findings(work, "--deep", "--model", "nano")["nano"]["detail"].startswith("transformers: nano")


def test_neither_torch_nor_rich_is_imported(work: Workdir) -> None:
    line = "import sys; sys.argv = ['dream', 'doctor']\nimport dream_cli.cli.main as m; m._leave = lambda code: None; m.main()\n"
    line += "heavy = {'torch', 'transformers', 'pyarrow', 'PIL', 'aiohttp', 'rich'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", line], check=False, capture_output=True, text=True, env=work.env)
    assert done.returncode == 0, done.stderr
