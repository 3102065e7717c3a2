"""A short start: what the program imports before it works, and what it leaves for later."""

import gc
import importlib.util
import logging
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

# Lightning needs no more of torchmetrics than this; the package itself imports each of its metrics, and with them
# torchvision, scipy.signal and torch's compiler: 2 s
_NEEDED = {
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
    "__version__": "torchmetrics.__about__",
}
_KNOWN_TO_WORK = "1."  # its versions; the next ones are imported as a whole
_COLLECT_AFTER = 50_000  # new objects, instead of 700; imports make many and leave no garbage: a quarter of their time


def shorten_start() -> None:
    """Have what is imported from here on take less time."""
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    defer_torchmetrics()


def defer_torchmetrics() -> None:
    """Have torchmetrics import its metrics when somebody asks for one, instead of with Lightning.

    Nothing is missing: whatever is asked of the package besides what Lightning needs runs its own start first.
    """
    if "torchmetrics" in sys.modules or not _is_known():
        return
    spec = importlib.util.find_spec("torchmetrics")
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Deferred
    sys.modules["torchmetrics"] = module


def _is_known() -> bool:
    try:
        return version("torchmetrics").startswith(_KNOWN_TO_WORK)
    except PackageNotFoundError:
        return False


class _Deferred(ModuleType):
    """A package whose start has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name == "_logger":  # which the package's own modules take from it
            return logging.getLogger("torchmetrics")
        if name in _NEEDED:
            import_module("torchmetrics.utilities")  # they import each other, and work in this order alone
            return getattr(import_module(_NEEDED[name]), name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module(self)
        return getattr(self, name)
