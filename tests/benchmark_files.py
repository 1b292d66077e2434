"""Small, harmless copies of the official files of every benchmark, and the folder of the real ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

FIXTURES = Path(__file__).parent / "fixtures" / "benchmarks"
IMAGES = {
    "figstep": [f"data/images/SafeBench-Tiny/query_ForbidQI_{key}_6.png" for key in ("1_1", "1_2", "2_1", "8_1")],
    "figstep_benign": [f"images/{i}.png" for i in range(4)],
    "siuo": [f"data/images/S-0{i}.png" for i in (1, 2, 3)],
    "vlguard": ["data/test/bad_ads/Ads_1.png", "data/test/bad_ads/Ads_2.png", "data/test/HOD/HOD_3.jpg", "data/test/HOD/HOD_4.jpg"],
    "mm_safetybench": [
        f"data/imgs/{scenario}/{kind}/{key}.jpg"
        for kind in ("SD", "SD_TYPO", "TYPO")
        for scenario, key in (("01-Illegal_Activity", 0), ("01-Illegal_Activity", 7), ("10-Legal_Opinion", 3))
    ],
    "mossbench": [*(f"data/images/{i}.png" for i in (1, 2, 3)), "data_contrast/images/1.png"],
    "mssbench": ["chat/1.jpg", "chat/2.jpg", "embodied/s.png", "embodied/u.png"],
    "holisafe": ["images/safe/park_1.jpg", "images/property/lock_1.jpg"],
    "vlsbench": ["imgs/0.png", "imgs/1.png"],
    "msts": ["data/unsafe_images/unsafe_image_0001.jpg"],
    "jailbreakv_28k": ["llm_transfer_attack/blank_1.png", "figstep/figstep_2.png", "query_related/SD_typo_3.png"],
    "xstest": [],
}


def official(folder: Path, *names: str) -> Path:
    """Copy the small files of some benchmarks (default: all) into a folder, with images, and return it."""
    for name in names or IMAGES:
        shutil.copytree(FIXTURES / name, folder / name)
        for number, image in enumerate(IMAGES[name], 10 * list(IMAGES).index(name)):
            path = folder / name / image
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (3 * number, 90, 160)).save(path)
    return folder


def real(name: str) -> Path:
    """Return a folder of the real files; the test is skipped where they are not beside the checkout or in DREAM_TEST_DATA."""
    folder = Path(os.environ.get("DREAM_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / name
    if not folder.exists():
        pytest.skip(f"the real files of {name} are not here; their licences do not let them stand in the repository (DREAM_TEST_DATA)")
    return folder
