"""Keras files of the original: weights in, weights and whole models out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexunet_pl.interop.keras.weights import build_keras_model, load_keras_weights, save_keras_weights

__all__ = ["build_keras_model", "load_keras_weights", "save_keras_weights"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and what a file says of its network is read without it
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("flexunet_pl.interop.keras.weights"), name)
