"""Masks from images by an ONNX file that flexunet has exported. Needs numpy, Pillow and onnxruntime; no torch.

python -m flexunet_runtime model.onnx images/ masks/

model = Model("model.onnx")
mask = model.predict(read_image("slice.png"))  # class index per pixel; model.names, model.colors say which
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexunet_runtime.errors import DataError, ModelFileError, NoImageError, TooLargeError, UserError
    from flexunet_runtime.images import decode_image, read_image
    from flexunet_runtime.masks import draw_overlay, encode_mask, write_mask
    from flexunet_runtime.model import Model
    from flexunet_runtime.window import Window

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "Model",
    "ModelFileError",
    "NoImageError",
    "TooLargeError",
    "UserError",
    "Window",
    "decode_image",
    "draw_overlay",
    "encode_mask",
    "read_image",
    "write_mask",
]

# flexunet_pl takes its errors from here, and `flexunet --help` should not wait for numpy and Pillow
_HOME = {
    "DataError": "errors",
    "Model": "model",
    "ModelFileError": "errors",
    "NoImageError": "errors",
    "TooLargeError": "errors",
    "UserError": "errors",
    "Window": "window",
    "decode_image": "images",
    "draw_overlay": "masks",
    "encode_mask": "masks",
    "read_image": "images",
    "write_mask": "masks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
