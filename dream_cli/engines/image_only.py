"""Processors of vision-language models on machines without torchvision, for images alone.

transformers reads images with PIL where torchvision is missing, but its video processors have no such twin, and a
processor that owns one cannot be loaded. We send no videos, so the video part is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace
from typing import Any

from dream_cli.errors import UsageError

_VIDEO = "video_processor"


def allow_image_only_processors() -> None:
    """Make AutoProcessor load without torchvision; raise UsageError where torchvision is installed but broken."""
    if _torchvision_works():
        return
    from transformers.processing_utils import ProcessorMixin

    if not hasattr(ProcessorMixin, "_dream_image_only"):
        ProcessorMixin._dream_image_only = True
        _leave_video_out(ProcessorMixin)


def _torchvision_works() -> bool:
    """Whether torchvision can be used; False where it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - a broken build fails in any way
        raise UsageError(
            f"torchvision is installed but does not work with this torch ({error}), which breaks transformers; "
            "it is not needed here: pip uninstall torchvision"
        ) from None
    return True


def _leave_video_out(mixin: Any) -> None:
    """Replace the three methods of transformers' ProcessorMixin that insist on the video part."""
    attributes = mixin.get_attributes.__func__
    construct = mixin.__init__
    from_parts = mixin.from_args_and_dict.__func__

    def get_attributes(cls: Any) -> list[str]:
        return [name for name in attributes(cls) if name != _VIDEO]

    def init(self: Any, *parts: Any, **named: Any) -> None:
        named = dict(zip(attributes(type(self)), parts, strict=False)) | named
        named.pop(_VIDEO, None)
        construct(self, **named)

    def from_args_and_dict(cls: Any, parts: Any, *rest: Any, **named: Any) -> Any:
        # SmolVLM's constructor takes the video part by position and reads its frame numbers while it formats chats.
        if _VIDEO in attributes(cls):
            if len(parts) == len(get_attributes(cls)):
                place = attributes(cls).index(_VIDEO)
                parts = [*parts[:place], None, *parts[place:]]
            if cls.__name__ == "SmolVLMProcessor":
                # On the class, because what stands on the instance would be saved with it.
                cls.video_processor = SimpleNamespace(num_frames=64, fps=1)
        return from_parts(cls, parts, *rest, **named)

    mixin.get_attributes = classmethod(get_attributes)
    mixin.__init__ = init
    mixin.from_args_and_dict = classmethod(from_args_and_dict)
