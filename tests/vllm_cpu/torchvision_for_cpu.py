"""Let a torchvision that was built for CUDA work beside a torch for the CPU: transforms work, its own kernels are absent."""

from __future__ import annotations

import importlib.machinery
import io
import sys
from typing import Any

_LIBRARIES: list[Any] = []  # the library of declared kernels lives as long as it is referenced


def decode_image(input: Any, mode: Any = None, apply_exif_orientation: bool = False) -> Any:
    """Return the image as a tensor, (3, height, width): torchvision's own decoder is built for CUDA."""
    import numpy
    import torch
    from PIL import Image, ImageOps

    opened = Image.open(input if isinstance(input, str) else io.BytesIO(input.numpy().tobytes()))
    image = ImageOps.exif_transpose(opened) if apply_exif_orientation else opened
    return torch.from_numpy(numpy.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


class Finder:
    """Finds torchvision, and prepares torch before its first real import; a mere look for it has no effect."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the specification of torchvision, None for every other module."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == "torchvision" else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            import torch

            if torch.version.cuda is not None:
                run(module)
                return
            _LIBRARIES.append(torch.library.Library("torchvision", "DEF"))
            for kernel in ("nms", "qnms"):
                _LIBRARIES[0].define(f"{kernel}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            run(module)
            import torchvision.io

            torchvision.io.decode_image = torchvision.io.image.decode_image = decode_image

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Finder)
