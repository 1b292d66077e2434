"""Private parts of transformers, trl and peft: each is looked up or replaced here, after a check that it exists.

Any release may remove such a part. Without the check, an override would silently never be called, or a setting never be read.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from dream_cli.errors import UsageError

# The versions that the tests run with, and the bounds of pyproject.toml.
TESTED = {"transformers": ("5.23", ">=5.18,<6"), "trl": ("1.16", ">=1.16,<1.17"), "peft": ("0.21", ">=0.17,<1"), "torch": ("2.13", ">=2.6")}
_VIDEO = "video_processor"
# What processors read of their video part although they get no video: when they format chats, or when they are made.
_VIDEO_PARTS = {"SmolVLMProcessor": SimpleNamespace(num_frames=64, fps=1)} | {
    f"MiniCPMV4_{minor}Processor": SimpleNamespace(slice_mode=False, downsample_mode="16x") for minor in (6, 7)
}


def private_part(owner: Any, name: str, package: str) -> Any:
    """Return an attribute of a module, class or object of a package; raise UsageError if the installed version lacks it."""
    if not hasattr(owner, name):
        raise lacks(package, f"{getattr(owner, '__name__', type(owner).__name__)}.{name}")
    return getattr(owner, name)


def lacks(package: str, what: str) -> UsageError:
    """Return the error for a package whose installed version lacks a required part."""
    tested, bounds = TESTED[package]
    return UsageError(
        f"{package} {version(package)} lacks {what}; dream is tested with {package} {tested}; pip install '{package}{bounds}'"
    )


def attention_of(config: Any) -> str:
    """Return the name of the attention implementation in a model's configuration."""
    return str(private_part(config, "_attn_implementation", "transformers"))


def set_attention(config: Any, name: str) -> None:
    """Set the attention implementation of a loaded model for the next forward passes; `set_attn_implementation` refuses ours."""
    private_part(config, "_attn_implementation", "transformers")
    config._attn_implementation = name


def allow_image_only_processors() -> None:
    """Make AutoProcessor load without torchvision; raise UsageError if torchvision is installed but broken.

    Without torchvision, transformers reads images with PIL. Its video processors have no such fallback, so a processor with a video
    part cannot be loaded. We send no videos, so the video part is left out.
    """
    if _torchvision_works():
        return
    from transformers.processing_utils import ProcessorMixin

    if not hasattr(ProcessorMixin, "_dream_image_only"):
        _leave_video_out(ProcessorMixin)
        ProcessorMixin._dream_image_only = True


def _torchvision_works() -> bool:
    """Whether torchvision can be used; False if it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - a broken build may raise anything
        raise UsageError(
            f"torchvision is installed but does not work with this torch ({error}), which breaks transformers; "
            "it is not needed here: pip uninstall torchvision"
        ) from None
    return True


def _leave_video_out(mixin: Any) -> None:
    """Replace the three methods of transformers' ProcessorMixin that require the video part, for the whole process.

    The change is permanent, because the attributes of a processor are read whenever it is used or saved.
    """
    attributes = private_part(mixin, "get_attributes", "transformers").__func__
    construct = mixin.__init__
    from_parts = private_part(mixin, "from_args_and_dict", "transformers").__func__

    def get_attributes(cls: Any) -> list[str]:
        return [name for name in attributes(cls) if name != _VIDEO]

    def init(self: Any, *parts: Any, **named: Any) -> None:
        if stand_in := _VIDEO_PARTS.get(type(self).__name__):
            # On the class, because an attribute of the instance would be saved with it.
            type(self).video_processor = stand_in
        named = dict(zip(attributes(type(self)), parts, strict=False)) | named
        named.pop(_VIDEO, None)
        construct(self, **named)

    def from_args_and_dict(cls: Any, parts: Any, *rest: Any, **named: Any) -> Any:
        # SmolVLM takes the video part by position.
        if _VIDEO in attributes(cls) and len(parts) == len(get_attributes(cls)):
            index = attributes(cls).index(_VIDEO)
            parts = [*parts[:index], None, *parts[index:]]
        return from_parts(cls, parts, *rest, **named)

    mixin.get_attributes = classmethod(get_attributes)
    mixin.__init__ = init
    mixin.from_args_and_dict = classmethod(from_args_and_dict)
