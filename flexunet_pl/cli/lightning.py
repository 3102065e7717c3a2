"""FlexUNetCLI: fit, validate, test and predict, by LightningCLI."""

import json
import logging
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, dict_to_namespace, get_loader, set_loader, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from rich.console import Console

from flexunet_pl.callbacks import (
    CaseScores,
    EpochChangeInference,
    FiniteLoss,
    GracefulStop,
    HistoryCurves,
    PredictionWriter,
    RandomState,
    RunRecord,
    StopFile,
    TrainSamples,
)
from flexunet_pl.check.quick import quick_check
from flexunet_pl.checkpoint import AtomicCheckpointIO, check_lightning_version
from flexunet_pl.cli.network_settings import (
    LINKED_ARGUMENTS,
    find_differences,
    has_one_class,
    name_one_class,
    settings_of,
    training_record,
)
from flexunet_pl.cli.parser_errors import explain_mistake, model_keys
from flexunet_pl.cli.preflight import check_checkpoint_folder, check_monitors, claim_run_folder
from flexunet_pl.common.class_paths import POSITIONS, check_value, importable_places
from flexunet_pl.common.console import say
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.common.files import written_in_place
from flexunet_pl.common.yaml import check_aliases
from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.metrics.score_table import epoch_classes, score_rows
from flexunet_pl.metrics.tables import make_table
from flexunet_pl.models.build import size_limits, without_downloads
from flexunet_pl.models.inference import Inference
from flexunet_pl.models.load import SavedModel, read_saved_model
from flexunet_pl.rgb_map import RgbMap
from flexunet_pl.task import SegmentationTask

SEED = 137  # the reference's

_RUN_NAME = "flexunet"
_MOST_FINDINGS = 5  # of the data, shown before a training
_TRAINER_DEFAULTS = {
    "max_epochs": 100,
    "gradient_clip_val": 0.4,
    "gradient_clip_algorithm": "value",
    "log_every_n_steps": 10,
    "logger": {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs", "name": _RUN_NAME, "default_hp_metric": False},
    },
}
_MODEL_DEFAULTS = {  # what `SegmentationTask` takes by itself, as class paths
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4, "eps": 1e-7}},
    "scheduler": {
        "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
        "init_args": {
            "monitor": "val/loss", "factor": 0.4, "patience": 4, "threshold": 1e-4, "threshold_mode": "abs",
        },
    },
}  # fmt: skip
# callbacks with a section of their own in the configuration: class and defaults
_CALLBACKS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "checkpoint": (
        ModelCheckpoint,
        {"monitor": "val/loss", "filename": "best", "save_on_train_epoch_end": True, "enable_version_counter": False},
    ),
    # behind the best, whose state it saves; ModelCheckpoint's own save_last writes only when there is a new best
    "last_checkpoint": (
        ModelCheckpoint,
        {"filename": "last", "save_on_train_epoch_end": True, "enable_version_counter": False},
    ),
    "early_stopping": (EarlyStopping, {"monitor": "val/loss", "patience": 10}),
    "finite_loss": (FiniteLoss, {}),
    "epoch_change": (EpochChangeInference, {}),
    "stop_file": (StopFile, {}),
    "prediction": (PredictionWriter, {}),
    "scores": (CaseScores, {}),
}
_MONITORS = ("checkpoint", "last_checkpoint", "early_stopping")  # those of them that watch a score
_EXPECTED_WARNINGS = (
    "The number of training batches",  # small data sets are no mistake
    ".*does not have many workers",  # data.num_workers has a default that fits the machine
    "LightningCLI's args parameter is intended",  # `main` always passes them
    "You're resuming from a checkpoint that ended before",  # EpochSampler goes on where the epoch stopped
    "Checkpoint directory .* exists and is not empty",  # files there are the run's own
    "Experiment logs directory .* exists and is not empty",  # it was made for the run's lock
    "Be aware that when using `ckpt_path`, callbacks",  # those of training have nothing to do elsewhere
    "The dirpath has changed from",  # test and predict write no checkpoints
    "Precision .* is not supported by the model summary",
    "`ModelCheckpoint.monitor=.*could not find the monitored key",  # before the first validation; later it is an error
    "Total length of `DataLoader` across ranks is zero",  # predict has nothing left to do
    "ReduceLROnPlateau conditioned on metric",  # the task steps it, and says what is missing
    "\\s*Dump of a value that does not round-trip",  # albumentations takes a list for a tuple
    ".*isinstance.treespec, LeafSpec.",  # Lightning calls a function that torch renamed
)


class Begun(Callback):
    """Knows whether the work has begun: what goes wrong before is a setting, or a checkpoint that does not fit.

    Attributes:
        done: Whether it has.
    """

    def __init__(self) -> None:
        self.done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        self.done = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it, unless this is the trial before a training."""
        self.done = self.done or not trainer.sanity_checking

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        self.done = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        self.done = True


class RunConfig(SaveConfigCallback):
    """Saves the configuration in the run's folder and shows it in TensorBoard."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Log the hyper-parameters of network, training and data."""
        shown = {key: self.config[key] for key in ("model", "data") if key in self.config}
        flat = {k: v if isinstance(v, int | float | bool) else str(v) for k, v in dict_to_namespace(shown).items()}
        for logger in trainer.loggers:
            logger.log_hyperparams(flat)


class FlexUNetCLI(LightningCLI):
    """Runs one of Lightning's verbs on `SegmentationTask` and `SegmentationDataModule`.

    Args:
        args: Command line behind the program's name.
        trusted_packages: Packages that class paths may name, besides the usual ones.
        held: What is held until the command ends, such as the lock on the run's folder.
    """

    def __init__(self, args: Sequence[str], trusted_packages: Sequence[str], held: ExitStack) -> None:
        _allow_imports(trusted_packages)
        self._trusted = tuple(trusted_packages)
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
        self._verb = args[0]
        self._held = held
        self.status = 0  # exit status: 1 where a part failed
        self._one_logit = False  # whether the checkpoint's network has one logit for two classes
        self._saved: SavedModel | None = None  # what the checkpoint holds, where there is one
        super().__init__(
            SegmentationTask,
            SegmentationDataModule,
            save_config_callback=RunConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=SEED,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # it stores a class path that loading would import and call
            args=list(args),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Name the verb that is run alone: making the parsers of the others takes most of a second."""
        return {self._verb: super().subcommands()[self._verb]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make parsers that raise instead of printing usage and exiting."""
        return super().init_parser(exit_on_error=False, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' sections, the defaults, and the links from task to data."""
        parser.set_defaults({f"trainer.{key}": value for key, value in _TRAINER_DEFAULTS.items()})
        parser.set_defaults({f"model.{key}": value for key, value in _MODEL_DEFAULTS.items()})
        for name, (callback, defaults) in _CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
            parser.set_defaults({f"{name}.{key}": value for key, value in defaults.items()})
        for key in ("rgb_map", "image_size", "in_channels", "image_window"):
            parser.link_arguments(f"model.{key}", f"data.{key}")
        # FlexUNet, segmentation_models_pytorch and monai name it differently; a link without its target is passed over
        for target in ("num_classes", "classes", "out_channels"):
            parser.link_arguments("model.rgb_map", f"model.network.init_args.{target}", compute_fn=self._class_count)
        parser.link_arguments("model.in_channels", "model.network.init_args.in_channels")
        parser.link_arguments("checkpoint.dirpath", "last_checkpoint.dirpath")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # the method's own arguments come in here, behind add_arguments_to_parser
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        if subcommand == "predict":
            parser.add_class_arguments(Inference, "inference")
        quiet = {"test": "verbose", "validate": "verbose", "predict": "return_predictions"}
        if subcommand in quiet:  # a table is printed instead; masks are written, not kept in memory
            parser.set_defaults({quiet[subcommand]: False})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and say of a mistake what it is, in one line.

        Raises:
            UserError: If the command line or a configuration file is wrong.
        """
        self._named = model_keys(args)
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            known = self._parser(args[0]).get_defaults().keys()
            raise UserError(explain_mistake(error.message, known)) from error
        check_config(self.config[self.config.subcommand], self._trusted)

    def _class_count(self, rgb_map: Any) -> int:
        """Return how many classes the network has: those of the map, or one logit where the checkpoint has one."""
        count = len(RgbMap.parse(rgb_map)) if rgb_map else 0
        return 1 if self._one_logit and count == 2 else count

    def _parse_ckpt_path(self) -> None:
        """Take the model's settings from the checkpoint, as Lightning does, but safely and not in silence.

        Raises:
            UserError: If a verb that needs a checkpoint has none.
            ModelFileError: If the file is no checkpoint of this package.
        """
        verb = self.config.subcommand
        path = self.config[verb].get("ckpt_path")
        if verb == "fit" and path == "last":
            path = self.config.fit.ckpt_path = self._last_of_earlier_runs()
        if path is None:
            if verb != "fit":
                raise UserError(f"{verb} needs --ckpt_path: name the checkpoint of a trained network")
            return
        saved = read_saved_model(path)
        settings = settings_of(saved, self.config[verb].get("model.network"))
        self._saved, self._one_logit = saved, has_one_class(saved)
        given = {
            key: value
            for key, value in self.config[verb].items()
            if key.startswith("model.") and key.rpartition(".")[2] not in LINKED_ARGUMENTS and value is not None
        }
        named, defaults = self._named, self._parser(verb).get_defaults()
        if verb == "fit" and saved.resumable:
            check_lightning_version(saved.lightning_version, path)
        elif verb == "fit":
            say(f"note: {path} holds weights and no state of a training: a new one starts from them")
            settings = {key: value for key, value in settings.items() if key == "network" or key not in named}
        try:
            self.config = self.parser.parse_object({verb: {"model": settings}}, self.config)
        except ArgumentError as error:
            raise ModelFileError(f"{path}: {explain_mistake(error.message, ())}") from error
        for key, value in given.items():
            used = self.config[verb].get(key)
            on_purpose = value != defaults.get(key) or key.split(".")[1] in named
            if on_purpose and used != value and not name_one_class(used, value):
                say(f"note: {key} is {used}, from the checkpoint; {value} is not used")

    def _starts_anew(self) -> bool:
        """Tell whether a training starts from the weights of a checkpoint, which has no state to go on from."""
        return self.config.subcommand == "fit" and self._saved is not None and not self._saved.resumable

    def _compare_with_checkpoint(self) -> None:
        """Look whether the network was trained as the configuration says, which a checkpoint does not decide.

        Raises:
            UserError: If a run would be resumed in another way.
        """
        if self._saved is None or self._starts_anew():
            return
        differing = find_differences(self._saved, self.config_dump["model"])
        run = _run_folder(self._saved.path)
        remedy = f"-c {run / 'config.yaml'}" if run is not None else "the configuration of that run, by -c"
        if differing and self.subcommand == "fit":
            name = differing[0]
            raise UserError(
                f"{self._saved.path}: model.{name} was {self._saved.training[name]} in this run and is "
                f"{self.config_dump['model'].get(name)} here; to resume it, give {remedy}"
            )
        if "loss" in differing and self.subcommand in {"validate", "test"}:
            say(f"note: the loss is that of this configuration, not of the training; for that, give {remedy}")

    def _last_of_earlier_runs(self) -> str | None:
        """Return the last checkpoint of the latest run that logs to the same place, or None where there is none."""
        logger = self.config.fit.trainer.get("logger")
        place = logger.init_args if isinstance(logger, Namespace) else {}
        folder = Path(place.get("save_dir") or ".") / (place.get("name") or "")
        found = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        say(f"resuming {found[-1]}" if found else f"note: no earlier run in {folder}: a new one begins")
        return str(found[-1]) if found else None

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}") from error

    def before_instantiate_classes(self) -> None:
        """Keep what belongs to a run together: a resumed run goes on in its folder, and its scores go there too."""
        verb = self.config.subcommand
        config = self.config[verb]
        path, logger = config.get("ckpt_path"), config.trainer.get("logger")
        run = _run_folder(Path(path)) if path is not None and not self._starts_anew() else None
        if run is None or not isinstance(logger, Namespace):
            return
        if verb == "fit":
            place = {"save_dir": str(run.parent.parent), "name": run.parent.name, "version": run.name}
            logger.init_args.update(dict_to_namespace(place))
        elif logger.init_args.get("name") == _RUN_NAME:  # unless the user named another place
            logger.init_args.update(dict_to_namespace({"save_dir": str(run), "name": verb}))

    def instantiate_classes(self) -> None:
        """Build task, data and trainer; a value that one of them does not take is the user's to mend.

        Raises:
            UserError: If there is such a value.
        """
        try:
            with size_limits():
                super().instantiate_classes()
        except UserError:
            raise
        except (ValueError, MisconfigurationException) as error:
            cause: BaseException = error
            while not isinstance(cause, UserError) and cause.__cause__ is not None:
                cause = cause.__cause__  # the parser puts its own words before those of a class
            raise UserError(f"configuration: {explain_mistake(str(cause), ())}") from error

    def after_instantiate_classes(self) -> None:
        """Give the task its configuration, for the checkpoint, and look for mistakes before any folder is made."""
        if self.subcommand == "predict":
            self.model.inference = self._get(self.config_init, "inference")
            self.datamodule.tiled = self.model.inference.tiled
        self._dump_config()
        self._compare_with_checkpoint()
        self.datamodule.setup(self.subcommand)
        if self.subcommand == "fit":
            findings = quick_check(self.datamodule.pairs) if self.trainer.is_global_zero else []
            for finding in findings[:_MOST_FINDINGS]:
                say(f"warning: {finding.message} (`flexunet check` finds more)")
            self._get(self.config_init, "epoch_change").check()
            check_monitors(self.trainer, self.model, {key: self.config.fit[key].monitor for key in _MONITORS})
            check_checkpoint_folder(self.trainer, self.config.fit.checkpoint.dirpath, self.config.fit.ckpt_path)
            if self.trainer.is_global_zero:
                dirpath = self.config.fit.checkpoint.dirpath
                self._held.enter_context(claim_run_folder(self.trainer, self.model, dirpath, self.datamodule.root))
        config = {key: value for key, value in self.config_dump["model"].items() if key != "rgb_map"}
        network = without_downloads(config["network"] or self.model.hparams["network"])
        self.model.hparams.update({**config, **training_record(config), "network": network})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has: safe checkpoints, samplers that do not pad, the callbacks without settings."""
        trainer_config = self._get(self.config_init, "trainer")
        kwargs["use_distributed_sampler"] = False  # the data module has samplers that count no sample twice
        files = AtomicCheckpointIO(weights_alone=self.subcommand != "fit")
        kwargs["plugins"] = [*_as_list(trainer_config.get("plugins")), files]
        callbacks = [*_as_list(trainer_config.get("callbacks"))]
        if self.subcommand == "fit":
            callbacks += [HistoryCurves(), RandomState(), GracefulStop(), TrainSamples(), RunRecord()]
            if trainer_config.get("logger"):
                callbacks.append(LearningRateMonitor(logging_interval="epoch"))
        elif self.subcommand == "predict":
            kwargs["logger"] = False
        if self.subcommand == "predict" or not trainer_config.get("logger"):
            self.save_config_callback = None  # without a run folder it would land in the working folder
        self._begun = Begun()
        kwargs["callbacks"] = [*callbacks, self._begun]  # behind those that take up their state then
        return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except OSError as error:  # TensorBoard's do not say of which file they are
            if error.filename is None and error.strerror is not None:
                error.filename = str(self.trainer.log_dir or self.trainer.default_root_dir)
            raise
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, MisconfigurationException) as error:
            path = self.config[subcommand].get("ckpt_path")
            if self._begun.done:
                raise
            if subcommand == "fit" and path is not None:
                raise ModelFileError(
                    f"{path}: the state of its training does not fit this one ({type(error).__name__}: {error}); resume"
                    " it with the settings of its run, or train anew"
                ) from error
            if isinstance(error, ValueError | MisconfigurationException):  # what Lightning says of a setting
                raise UserError(f"trainer: {' '.join(str(error).split())}") from error
            raise

    def before_fit(self) -> None:
        """Start from weights alone, where the checkpoint has no state of a training to go on from."""
        if self._saved is not None and self._starts_anew():
            self.model.network.load_state_dict(dict(self._saved.weights))
            self.config_init.fit.ckpt_path = None
        self._saved = None  # its weights take memory

    def after_fit(self) -> None:
        """Say where the results are."""
        checkpoint, folder = self.trainer.checkpoint_callback, self.trainer.log_dir  # which all processes must ask for
        best = getattr(checkpoint, "best_model_path", "")
        score = getattr(checkpoint, "best_model_score", None)
        if self.trainer.is_global_zero and not self.trainer.global_step:
            say("note: nothing was trained; look at trainer.max_epochs and trainer.limit_train_batches")
        if best and self.trainer.is_global_zero:
            say(f"run folder       {folder}")
            watched = self.config.fit.checkpoint.monitor
            say(f"best checkpoint  {best}" + (f"  ({watched} {score:.4f})" if score is not None else ""))
            say(f"next             flexunet test --ckpt_path {best} --data.root {self.datamodule.root}")

    def after_validate(self) -> None:
        """Print the scores and keep them as ``val_scores.json``."""
        scores = self._write_scores("val")
        if self.trainer.is_global_zero and scores:
            classes = epoch_classes(scores, self.model.rgb_map.names[1:])
            Console().print(make_table("valid, means over images", classes, score_rows(classes.values())))
            say(f"loss {scores['loss']:.4f}; mean foreground Dice {scores.get('dice', float('nan')):.4f}")
            say(f"dice_coef_multiclass {scores['dice_coef_multiclass']:.4f} (the reference's; counts the background)")

    def after_test(self) -> None:
        """Keep the scores as ``test_scores.json``; `CaseScores` has printed them."""
        self._write_scores("test")

    def after_predict(self) -> None:
        """Say where the masks are, and what is missing."""
        writer: PredictionWriter = self._get(self.config_init, "prediction")
        writer.gather_failures(self.trainer)
        self.status = 1 if writer.failed else 0
        if self.trainer.is_global_zero:
            there = f" ({writer.skipped} were there already)" if writer.skipped else ""
            say(f"masks written to {writer.output_dir}{there}")
            if writer.failed:
                say(f"{len(writer.failed)} could not be predicted: {', '.join(sorted(writer.failed))}")

    def _write_scores(self, stage: str) -> dict[str, float]:
        folder = self.trainer.log_dir  # all processes must ask for it together
        scores = {k.removeprefix(f"{stage}/"): float(v) for k, v in self.trainer.callback_metrics.items()}
        if self.trainer.is_global_zero and self.trainer.loggers and folder is not None:
            with written_in_place(Path(folder) / f"{stage}_scores.json") as target:
                target.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
        return scores


def check_config(config: Namespace, trusted: Sequence[str] = ()) -> None:
    """Check what a configuration names, before anything of it is called.

    Args:
        config: Configuration of one verb, parsed.
        trusted: Packages that class paths may name, besides the usual ones.

    Raises:
        UserError: If a key holds a class that may not stand there, or something else that is no plain value.
    """
    for section, content in vars(config).items():
        if section in {"config", "__path__"}:
            continue
        keys = vars(content) if isinstance(content, Namespace) and "class_path" not in content else {"": content}
        for name, value in keys.items():
            if name == "__path__":
                continue
            key = f"{section}.{name}".rstrip(".")
            position = POSITIONS.get(key)
            check_value(value, key, () if position is None else (position,), trusted)


def _allow_imports(trusted: Sequence[str]) -> None:
    """Tell the parser which modules it may import for a class path; what the class must be is checked afterwards.

    Raises:
        UserError: If one of the trusted packages is no name of one.
    """
    homes, refused = importable_places()
    set_loader("yaml", _load_bounded, exceptions=(yaml.YAMLError,))  # for texts and files that a value names, too
    try:
        set_parsing_settings(
            import_path_denylist=["*", *refused],
            import_path_allowlist=[*homes, *trusted],
            instantiate_subclass_spec_in_any=False,
            config_read_mode_fsspec_enabled=False,  # Lightning turns it on, and any value that is an address is fetched
            config_read_mode_urls_enabled=False,
        )
    except ValueError as error:
        raise UserError(f"--trust: {error}") from error
    if trusted:
        say(f"note: --trust: this configuration may name classes of {', '.join(trusted)}, whose code then runs")


_load_yaml = get_loader("yaml")


def _load_bounded(text: str) -> Any:
    check_aliases(text)
    return _load_yaml(text)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()


def _run_folder(checkpoint: Path) -> Path | None:
    """Return the folder of the run that wrote a checkpoint, or None where the checkpoint lies elsewhere."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file() else None


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def run(verb: str, args: Sequence[str], trusted_packages: Sequence[str] = ()) -> int:
    """Run one of Lightning's verbs.

    Args:
        verb: fit, validate, test or predict.
        args: Its command line.
        trusted_packages: Packages that class paths may name, besides the usual ones.

    Returns:
        Exit status: 0, or 1 where a part failed.
    """
    with ExitStack() as held:
        return FlexUNetCLI([verb, *args], trusted_packages, held).status
