"""The checkpoint that a verb starts from: what of it is used, and what it is compared with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, dict_to_namespace

from flexunet_pl.checkpoint import check_lightning_version
from flexunet_pl.cli.defaults import RUN_NAME
from flexunet_pl.cli.network_settings import (
    LINKED_ARGUMENTS,
    find_differences,
    has_one_class,
    name_one_class,
    settings_of,
)
from flexunet_pl.common.checkpoint_set import checkpoint_files
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.models.load import SavedModel, read_saved_model


class StartingPoint:
    """A checkpoint, and the verb that starts from it.

    Args:
        verb: fit, validate, test or predict.
        path: The checkpoint.

    Raises:
        ModelFileError: If the file is no checkpoint of this package, or of another Lightning than can resume it.
    """

    def __init__(self, verb: str, path: str | Path) -> None:
        self.verb = verb
        self.saved: SavedModel = read_saved_model(path)
        self.has_one_logit = has_one_class(self.saved)
        self.weights_alone = verb == "fit" and not self.saved.resumable  # then a new training starts from them
        if verb == "fit" and self.saved.resumable:
            check_lightning_version(self.saved.lightning_version, path)
        elif self.weights_alone:
            say(f"note: {path} holds weights and no state of a training: a new one starts from them")

    def settings(self, given: Any, named: set[str]) -> dict[str, dict[str, Any]]:
        """Return what of the configuration the checkpoint decides: the network, and what it is given.

        Args:
            given: The network of the configuration, if it names one.
            named: Settings that the user has named.

        Returns:
            Settings by name, by section.
        """
        settings = settings_of(self.saved, given)
        if self.verb == "fit":  # other weights are trusted otherwise
            settings |= {"temperature": 1.0, "postprocessing": None, "never_empty": False}
        if self.weights_alone:
            settings = {key: value for key, value in settings.items() if key == "network" or key not in named}
        return {"model": settings, "data": {"neighbours": self.saved.neighbours}}

    @property
    def run_folder(self) -> Path | None:
        """Folder of the run that is gone on with or looked at; None where the checkpoint lies elsewhere."""
        if self.weights_alone:
            return None
        folder = self.saved.path.absolute().parent
        return folder.parent if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file() else None

    def check_training(self, model: Mapping[str, Any]) -> None:
        """Look whether the network was trained as the configuration says, which a checkpoint does not decide.

        Args:
            model: The `model` section of the configuration, as plain values.

        Raises:
            UserError: If a run would be resumed in another way.
        """
        if self.weights_alone:
            return
        differing, run = find_differences(self.saved, model), self.run_folder
        remedy = f"-c {run / 'config.yaml'}" if run is not None else "the configuration of that run, by -c"
        if differing and self.verb == "fit":
            name = differing[0]
            raise UserError(
                f"{self.saved.path}: model.{name} was {self.saved.training[name]} in this run and is {model.get(name)} "
                f"here; to resume it, give {remedy}"
            )
        if "loss" in differing and self.verb in {"validate", "test"}:
            say(f"note: the loss is that of this configuration, not of the training; for that, give {remedy}")

    def use_facts(self, config: Any) -> None:
        """Cut volumes as those were that were trained on, where the user says nothing else.

        Args:
            config: Configuration of the verb, which is changed.
        """
        if self.verb != "predict" or config.data.volume.window or config.data.volume.percentiles:
            return
        for name, value in self.saved.facts.plain().items():
            if value is not None:
                key = name.removeprefix("volume_")
                config.data.volume[key] = value
                say(f"note: data.volume.{key} is {value}, as of the volumes which were trained on")

    def place_logs(self, logger: Any) -> None:
        """Keep what belongs to a run together: a resumed run goes on in its folder, and its scores go there too.

        Args:
            logger: The logger's configuration, which is changed.
        """
        run = self.run_folder
        if run is None or not isinstance(logger, Namespace):
            return
        if self.verb == "fit":
            place = {"save_dir": str(run.parent.parent), "name": run.parent.name, "version": run.name}
            logger.init_args.update(dict_to_namespace(place))
        elif logger.init_args.get("name") == RUN_NAME:  # unless the user named another place
            logger.init_args.update(dict_to_namespace({"save_dir": str(run), "name": self.verb}))


def find_checkpoint(verb: str, config: Any) -> str | None:
    """Return the checkpoint that a verb starts from: for ``last``, that of the latest run that logs to the same place.

    Args:
        verb: fit, validate, test or predict.
        config: Its configuration.

    Returns:
        The file, or None where a training starts without one.

    Raises:
        UserError: If another verb has none.
    """
    path: str | None = config.get("ckpt_path")
    if path is None and verb != "fit":
        raise UserError(f"{verb} needs --ckpt_path: name the checkpoint of a trained network")
    if path is not None and (path != "last" or verb != "fit"):
        files = checkpoint_files(path)
        if verb == "fit" and len(files) > 1:
            raise UserError(f"{path}: holds {len(files)} checkpoints, and a training starts from one")
        return str(files[0]) if len(files) == 1 else path
    if path is None:
        return None
    logger = config.trainer.get("logger")
    place = logger.init_args if isinstance(logger, Namespace) else {}
    folder = Path(place.get("save_dir") or ".") / (place.get("name") or "")
    found = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    say(f"resuming {found[-1]}" if found else f"note: no earlier run in {folder}: a new one begins")
    return str(found[-1]) if found else None


def say_what_is_not_used(
    given: Mapping[str, Any], used: Mapping[str, Any], defaults: Mapping[str, Any], named: set[str]
) -> None:
    """Tell the user which of the settings given are those of the checkpoint instead.

    Args:
        given: Settings before, by key.
        used: Settings now.
        defaults: Those of a configuration in which nothing is said.
        named: Settings that the user has named.
    """
    for key, value in given.items():
        if not key.startswith("model.") or key.rpartition(".")[2] in LINKED_ARGUMENTS or value is None:
            continue
        on_purpose = value != defaults.get(key) or key.split(".")[1] in named
        if on_purpose and used.get(key) != value and not name_one_class(used.get(key), value):
            say(f"note: {key} is {used.get(key)}, from the checkpoint; {value} is not used")
