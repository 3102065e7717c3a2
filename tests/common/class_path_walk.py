"""Ask of every public name of the libraries whether it may stand in each position; run in a process of its own.

Importing all of them has side effects, and those are watched: nothing may be started, connected to or written while a
name is asked for. Prints JSON: how many names were asked for, how many were taken, and what was taken wrongly.
"""

import json
import logging
import pkgutil
import sys
import warnings
from importlib import import_module
from inspect import isabstract, isclass

warnings.simplefilter("ignore")
logging.disable()

PACKAGES = (
    "albumentations",
    "flexunet_pl",
    "lightning",
    "monai",
    "segmentation_models_pytorch",
    "torch",
    "torchmetrics",
    "torchvision",
)
PASSED_OVER = ("__main__", ".testing", "._", "torch.utils.benchmark", "torch.onnx._internal")  # of modules to import
watched: list[str] | None = None


def watch(event, arguments):
    """Note what a name must not cause."""
    if watched is None:
        return
    if arguments[:1] == (sys.executable,):  # the parser asks Python where its packages lie
        return
    writes = event == "open" and isinstance(arguments[1], str) and not set(arguments[1]).isdisjoint("wax+")
    if writes or event in {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "socket.connect"}:
        watched.append(f"{event} {arguments[0]}")


def public_names():
    """List the import paths of all public names of the packages' modules, with what they lead to."""
    for package in PACKAGES:
        root = import_module(package)
        for module in [package, *(found.name for found in pkgutil.walk_packages(root.__path__, f"{package}.", str))]:
            if any(part in module for part in PASSED_OVER):
                continue
            try:
                home = import_module(module)
            except BaseException:  # noqa: S112 - modules for hardware or extras that are not here
                continue
            for name in dir(home):
                if not name.startswith("_"):
                    yield f"{module}.{name}", getattr(home, name, None)


def main():
    """Ask, and print what was found."""
    global watched
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningArgumentParser

    from flexunet_pl.cli.config_check import allow_imports, check_config
    from flexunet_pl.common.class_paths import find_class, find_stranger
    from flexunet_pl.common.class_positions import NETWORK, POSITIONS, importable_places
    from flexunet_pl.data.datamodule import SegmentationDataModule
    from flexunet_pl.task import SegmentationTask

    sys.addaudithook(watch)
    allow_imports(())
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(SegmentationTask, "model")
    parser.add_lightning_class_args(SegmentationDataModule, "data")
    names = dict(public_names())
    homes = tuple(importable_places()[0])
    asked = parsed = 0
    taken: dict[str, int] = dict.fromkeys(POSITIONS, 0)
    wrong: list[str] = []
    known: set[tuple[str, object]] = set()
    watched = []
    for number, (path, found) in enumerate(names.items()):
        at_home = path.startswith(tuple(f"{home}." for home in homes)) or path in homes
        for key, position in POSITIONS.items():
            asked += 1
            try:
                accepted = find_class(path, position)
            except ValueError:
                accepted = None
            if accepted is not None:
                taken[key] += 1
                bases = tuple(
                    getattr(import_module(b.rpartition(".")[0]), b.rpartition(".")[2]) for b in position.bases
                )
                if not (isclass(found) and issubclass(found, bases) and not isabstract(found)):
                    wrong.append(f"{key}: {path}")
            # in a checkpoint: the network by the same rule, the rest by its name alone, since it is never built
            by_name = find_stranger({"class_path": path}, position) is None
            of_position = path in position.homes or path.startswith(tuple(f"{home}." for home in position.homes))
            if position is not NETWORK and by_name and not of_position:
                wrong.append(f"checkpoint {key}: {path}")
            # by the parser: all that it may import, and some of what it may not
            first = accepted is not None and (key, accepted) not in known
            if first or number % (50 if at_home else 1000) == 0:
                known.add((key, accepted))
                parsed += 1
                section, _, name = key.partition(".")
                value = {"class_path": path}
                try:
                    config = parser.parse_object(
                        {section: {name: [value] if name in {"callbacks", "plugins"} else value}}
                    )
                    check_config(config)
                    passed = True
                except Exception:
                    passed = False
                if passed and accepted is None:
                    wrong.append(f"yaml {key}: {path}")
    seen, watched = watched, None
    print(
        json.dumps(
            {"names": len(names), "asked": asked, "parsed": parsed, "taken": taken, "wrong": wrong, "seen": seen}
        )
    )


if __name__ == "__main__":
    main()
