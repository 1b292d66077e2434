"""The checks of an installation: missing or incompatible packages, plug-ins, devices, folders, and the engine of a model.

torch is not imported here: that takes seconds, and a broken torch must not break this command.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from dream_cli import __version__
from dream_cli.engines.address import public_address
from dream_cli.engines.protocol import EngineSpec
from dream_cli.engines.registry import DEFAULT_MODEL, check_address, check_model, choose_engine
from dream_cli.engines.store import default_store
from dream_cli.errors import UsageError, with_extra
from dream_cli.records import plugins
from dream_cli.records.cache import cache_folder

_OURS = "dream-cli"
# Each is built for one build of torch, and transformers imports both if they are installed.
_TORCH_PARTS = ("torchvision", "torchaudio")
_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
probe = {"cuda": cuda, "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [], "broken": {}}
for name in ("torchvision", "torchaudio", "transformers"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    except Exception as error:
        probe["broken"][name] = f"{type(error).__name__}: {error}"
print(json.dumps(probe))
"""


Part = Literal["packages", "plug-ins", "devices", "files", "engine"]


@dataclass(frozen=True)
class Finding:
    """The state of one package, plug-in, device, folder or engine.

    State `bad` breaks a command; `absent` is missing but needed by some commands only.
    """

    part: Part
    name: str
    state: Literal["ok", "absent", "bad"]
    detail: str


def examine(spec: EngineSpec, deep: bool = False) -> list[Finding]:
    """Return the findings about this installation; `deep` also imports torch, in a separate process (takes seconds)."""
    probe = probed() if deep else None
    devices = list(_devices(probe))
    gpu = bool(probe["cuda"]) if probe else any(d.name == "GPU" and d.state == "ok" for d in devices)
    broken = [
        Finding("packages", name, "bad", f"{installed(name)} does not load ({reason})")
        for name, reason in (probe or {"broken": {}})["broken"].items()
    ]
    return [*_packages(), *_misfits(), *broken, *_plugins(), *devices, *_files(), _engine(spec, gpu)]


def report(findings: list[Finding]) -> str:
    """Return the findings as text, part by part."""
    lines = [f"dream {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    width = max(len(finding.name) for finding in findings)
    for part in get_args(Part):
        if any(finding.part == part for finding in findings):
            lines += ["", part]
        lines += [f"  {f.state:<6}  {f.name:<{width}}  {f.detail}" for f in findings if f.part == part]
        if part == "packages" and any(f.part == part and f.state == "absent" for f in findings):
            lines.append(f"  {with_extra('EXTRA')}")
    return "\n".join(lines) + "\n"


def as_json(findings: list[Finding]) -> str:
    """Return the findings as one JSON object."""
    return json.dumps({"dream": __version__, "python": platform.python_version(), "findings": [asdict(f) for f in findings]}) + "\n"


def _packages() -> Iterator[Finding]:
    """Yield one finding for each package that dream or one of its extras requires."""
    from packaging.requirements import Requirement

    seen: set[str] = set()
    for line in importlib.metadata.requires(_OURS) or []:
        wanted = Requirement(line)
        extra = _extra(wanted)
        if wanted.name in {_OURS, *seen} or extra in ("test", "docs"):
            continue
        seen.add(wanted.name)
        yield _package(wanted, extra)


def _extra(wanted: Any) -> str | None:
    """Return the extra that a requirement belongs to, None for a requirement of the base install."""
    extras = importlib.metadata.metadata(_OURS).get_all("Provides-Extra") or []
    if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
        return None
    return next((extra for extra in extras if wanted.marker.evaluate({"extra": extra})), None)


def _package(wanted: Any, extra: str | None) -> Finding:
    version = installed(wanted.name)
    fix = with_extra(extra) if extra else "pip install . in the checkout"
    if version is None:
        return Finding(
            "packages", wanted.name, "absent" if extra else "bad", f"not installed; extra {extra}" if extra else f"not installed: {fix}"
        )
    if not wanted.specifier.contains(version, prereleases=True):
        return Finding("packages", wanted.name, "bad", f"{version} is installed, {wanted.specifier} is needed: {fix}")
    return Finding("packages", wanted.name, "ok", version)


@cache
def installed(name: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plugins() -> Iterator[Finding]:
    for kind in get_args(plugins.Kind):
        for name, points in sorted(plugins.offered(kind).items()):
            packages = " and ".join(sorted(map(plugins.package_of, points)))
            clash = "; uninstall one of them" if len(points) > 1 else ""
            yield Finding("plug-ins", name, "bad" if clash else "ok", f"dream.{kind}, of {packages}{clash}")


def _files() -> Iterator[Finding]:
    """Yield the location and size of the call store, and the locations of the cache and of downloads."""
    store = Path(default_store())
    size = f"{store.stat().st_size / 1e6:,.1f} MB" if store.is_file() else "not created yet"
    yield Finding("files", "calls", "ok", f"{store} ({size}; --store, DREAM_STORE)")
    yield Finding("files", "cache", "ok", f"{cache_folder()} (images/ and origins/ in it are created again when needed)")
    hub = os.environ.get("HF_HUB_CACHE") or f"{os.environ.get('HF_HOME') or Path.home() / '.cache' / 'huggingface'}/hub"
    yield Finding("files", "hub", "ok", f"{hub} (models and data sets from the Hugging Face Hub)")


def _misfits() -> Iterator[Finding]:
    """Yield the packages that are incompatible with the installed torch or transformers.

    torchvision and torchaudio from PyPI are built for CUDA: with a CPU build of torch, they and transformers, which imports them, fail.
    """
    from packaging.requirements import Requirement

    for name in (*_TORCH_PARTS, "trl", "peft", "accelerate", "vllm"):
        if installed(name) is None:
            continue
        for line in importlib.metadata.requires(name) or []:
            wanted = Requirement(line)
            present = installed(wanted.name) if wanted.name in ("torch", "transformers") else None
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if present is not None and applies and not wanted.specifier.contains(present, prereleases=True):
                yield Finding(
                    "packages", name, "bad", f"{installed(name)} needs {wanted.name}{wanted.specifier}, but {present} is installed"
                )
    torch = installed("torch") or ""
    for name in _TORCH_PARTS:
        version = installed(name)
        if version is not None and torch.endswith("+cpu") and not version.endswith("+cpu"):
            reason = f"{version} is built for CUDA, torch {torch} is not, so transformers fails to import: pip uninstall {name}"
            yield Finding("packages", name, "bad", reason)


def probed() -> dict[str, Any]:
    """Return {cuda, devices, broken} from torch, imported in a separate process: an import can end the process."""
    if installed("torch") is None:
        return {"cuda": False, "devices": [], "broken": {}}
    ran = subprocess.run([sys.executable, "-c", _PROBE], check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        return {"cuda": False, "devices": [], "broken": {"torch": (ran.stderr.strip().splitlines() or ["it does not load"])[-1]}}
    probe: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return probe


def _devices(probe: dict[str, Any] | None) -> Iterator[Finding]:
    yield Finding("devices", "CPU", "ok", f"{os.cpu_count()} cores")
    torch = installed("torch")
    cards = _cards() if probe is None else probe["devices"]
    if not cards:
        yield Finding("devices", "GPU", "absent", "no NVIDIA GPU found" if probe is None else "torch finds none")
    for card in cards:
        unusable = probe is None and (torch or "").endswith("+cpu")
        detail = f"{card}, but torch {torch} is built for CPU: install torch for CUDA" if unusable else card
        yield Finding("devices", "GPU", "bad" if unusable else "ok", detail)


def _cards() -> list[str]:
    """Return the names of the NVIDIA GPUs from the driver, with their memory."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        ran = subprocess.run(query, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ran.stdout.strip().splitlines() if ran.returncode == 0 else []


def _engine(spec: EngineSpec, gpu: bool) -> Finding:
    """Return the engine that the registry selects for a model, and why."""
    name = spec.model or public_address(spec.base_url or "") or DEFAULT_MODEL
    try:
        if spec.base_url is not None:
            check_address(spec.base_url)
        choice = choose_engine(spec, lambda: gpu)
        if choice.engine != "openai":
            check_model(spec.model)
    except UsageError as error:
        return Finding("engine", name, "bad", str(error))
    return Finding("engine", name, "ok", f"{choice.engine}: {choice.why}")
