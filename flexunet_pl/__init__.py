"""Train, score and deploy configurable U-Nets for medical image segmentation with PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexunet_pl.data.datamodule import SegmentationDataModule
    from flexunet_pl.models.flexunet import FlexUNet
    from flexunet_pl.models.load import load_model
    from flexunet_pl.rgb_map import RgbMap
    from flexunet_pl.task import SegmentationTask

__version__ = "0.1.0"
__all__ = ["FlexUNet", "RgbMap", "SegmentationDataModule", "SegmentationTask", "load_model"]

# torch and lightning take seconds to import: each name brings its module in when it is first used
_HOME = {
    "FlexUNet": "flexunet_pl.models.flexunet",
    "RgbMap": "flexunet_pl.rgb_map",
    "SegmentationDataModule": "flexunet_pl.data.datamodule",
    "SegmentationTask": "flexunet_pl.task",
    "load_model": "flexunet_pl.models.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
