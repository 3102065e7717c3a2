"""FlexUNetCLI: fit, validate, test and predict, by LightningCLI."""

from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from jsonargparse import dict_to_namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from flexunet_pl.callbacks import PredictionWriter
from flexunet_pl.checkpoint import AtomicCheckpointIO
from flexunet_pl.cli.config_check import allow_imports, check_config
from flexunet_pl.cli.defaults import (
    CALLBACKS,
    MODEL_DEFAULTS,
    SEED,
    TRAINER_DEFAULTS,
    fit_callbacks,
    pass_over_expected,
)
from flexunet_pl.cli.network_settings import training_record
from flexunet_pl.cli.parser_errors import explain_parser_error, model_keys
from flexunet_pl.cli.preflight import check_classes, check_fit, check_trainer
from flexunet_pl.cli.results import keep_scores, report_fit, report_prediction, report_validation
from flexunet_pl.cli.run_errors import Begun, explained_start, explained_values
from flexunet_pl.cli.starting_point import StartingPoint, find_checkpoint, say_what_is_not_used
from flexunet_pl.common.distributed import leave_group
from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.data.datamodule import SegmentationDataModule
from flexunet_pl.io.dataset_facts import read_facts
from flexunet_pl.models.build import size_limits, without_downloads
from flexunet_pl.models.inference import Inference
from flexunet_pl.prediction.plan import PredictionOutput
from flexunet_pl.rgb_map import RgbMap
from flexunet_pl.task import SegmentationTask

_SHORT = "--flag-below"  # of a key that is given to every call
_OF_PREDICTION = ("inference", "output")  # arguments that have sections of their own


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
        callbacks: More of them.
    """

    def __init__(
        self, args: Sequence[str], trusted_packages: Sequence[str], held: ExitStack, callbacks: Sequence[Callback] = ()
    ) -> None:
        allow_imports(trusted_packages)
        self._trusted = tuple(trusted_packages)
        pass_over_expected()
        self._verb = args[0]
        self._held = held
        self._callbacks = callbacks
        self._start: StartingPoint | None = None
        self._begun = Begun()
        self.status = 0  # exit status: 1 where a part failed
        super().__init__(
            SegmentationTask, SegmentationDataModule, RunConfig, {"overwrite": True}, seed_everything_default=SEED,
            auto_configure_optimizers=False, args=list(args),
            load_from_checkpoint_support=False,  # it stores a class path that loading would import and call
        )  # fmt: skip

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Name the verb that is run alone: making the parsers of the others takes most of a second."""
        return {self._verb: super().subcommands()[self._verb]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make parsers that raise instead of printing usage and exiting."""
        return super().init_parser(exit_on_error=False, **kwargs)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add trainer, model and data; what belongs to prediction has sections of its own."""
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        skip: set[str | int] = set() if self._verb == "predict" else set(_OF_PREDICTION)
        for key, section in (("model", self._model_class), ("data", self._datamodule_class)):
            parser.add_class_arguments(section, key, skip=skip, fail_untyped=False, sub_configs=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks' sections, the defaults, and the links from task to data."""
        parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})
        parser.set_defaults({f"model.{key}": value for key, value in MODEL_DEFAULTS.items()})
        for name, (callback, defaults) in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
            parser.set_defaults({f"{name}.{key}": value for key, value in defaults.items()})
        for key in ("rgb_map", "image_size", "in_channels", "image_window", "patches"):
            parser.link_arguments(f"model.{key}", f"data.{key}")
        parser.link_arguments("data.neighbours", "model.neighbours")
        # FlexUNet, segmentation_models_pytorch and monai name it differently; a link without its target is passed over
        for target in ("num_classes", "classes", "out_channels"):
            parser.link_arguments("model.rgb_map", f"model.network.init_args.{target}", compute_fn=self._class_count)
        parser.link_arguments("model.in_channels", "model.network.init_args.in_channels")
        parser.link_arguments("checkpoint.dirpath", "last_checkpoint.dirpath")
        parser.add_class_arguments(PredictionOutput, "prediction")
        if self._verb == "predict":
            parser.add_class_arguments(Inference, "inference")
            parser.link_arguments("inference", "model.inference", apply_on="instantiate")
            parser.link_arguments("inference", "data.inference", apply_on="instantiate")
            parser.link_arguments("prediction", "data.output", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # the method's own arguments come in here, behind add_arguments_to_parser
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        quiet = {"test": "verbose", "validate": "verbose", "predict": "return_predictions"}
        if subcommand in quiet:  # a table is printed instead; masks are written, not kept in memory
            parser.set_defaults({quiet[subcommand]: False})
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and say of an error what it is, in one line.

        Raises:
            UserError: If the command line or a configuration file is wrong.
        """
        self._named = model_keys(args)
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            known = self._parser(args[0]).get_defaults().keys()
            raise UserError(explain_parser_error(error.message, known)) from error
        check_config(self.config[self.config.subcommand], self._trusted)

    def _class_count(self, rgb_map: Any) -> int:
        """Return how many classes the network has: those of the map, or one logit where the checkpoint has one."""
        count = len(RgbMap.parse(rgb_map)) if rgb_map else 0
        return 1 if self._start is not None and self._start.has_one_logit and count == 2 else count

    def _parse_ckpt_path(self) -> None:
        """Take the model's settings from the checkpoint, as Lightning does, but safely and not in silence.

        Raises:
            ModelFileError: If the file is no checkpoint of this package.
        """
        verb, config = self._verb, self.config[self._verb]
        path = config.ckpt_path = find_checkpoint(verb, config)
        if path is None:
            return
        self._start = StartingPoint(verb, path)
        given = dict(config.items())
        settings = self._start.settings(config.get("model.network"), self._named)
        try:
            self.config = self.parser.parse_object({verb: settings}, self.config)
        except ArgumentError as error:
            raise ModelFileError(f"{path}: {explain_parser_error(error.message, ())}") from error
        used, defaults = dict(self.config[verb].items()), dict(self._parser(verb).get_defaults().items())
        self._start.use_facts(self.config[verb])
        say_what_is_not_used(given, used, defaults, self._named)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}") from error

    def before_instantiate_classes(self) -> None:
        """Look for the classes first, on which the network depends; and keep what belongs to a run together."""
        check_classes(self.config[self._verb], begins=self._verb == "fit" and self._start is None)
        if self._start is not None:
            self._start.place_logs(self.config[self._verb].trainer.get("logger"))

    def instantiate_classes(self) -> None:
        """Build task, data and trainer."""
        with explained_values(), size_limits():
            super().instantiate_classes()
        check_trainer(self.config[self._verb].trainer, self.datamodule.num_workers)

    def after_instantiate_classes(self) -> None:
        """Give the checkpoint its configuration, and look for errors before any folder is made."""
        self._dump_config()
        model = self.config_dump["model"]
        if self._start is not None:
            self._start.check_training(model)
        if self._verb == "predict":
            self.datamodule.checkpoint = self.config.predict.ckpt_path
        else:  # of a prediction later: its plan reads the header of every volume
            self.datamodule.setup(self._verb)
        if self._verb == "fit":
            self._get(self.config_init, "epoch_change").check()
            self._held.enter_context(check_fit(self.trainer, self.model, self.datamodule, self.config.fit))
            self.model.hparams.update(read_facts(self.datamodule.root).plain())
        plain = {key: value for key, value in model.items() if key != "rgb_map"}
        network = without_downloads(model["network"] or self.model.hparams["network"])
        self.model.hparams.update({**plain, **training_record(plain), "network": network})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has: safe checkpoints, samplers that do not pad, the callbacks without settings.

        Raises:
            UserError: If Lightning does not take a setting.
        """
        trainer_config = self._get(self.config_init, "trainer")
        kwargs["use_distributed_sampler"] = False  # the data module has samplers that count no sample twice
        files = AtomicCheckpointIO(weights_alone=self._verb != "fit")
        kwargs["plugins"] = [*_as_list(trainer_config.get("plugins")), files]
        callbacks = _as_list(trainer_config.get("callbacks"))
        if self._verb == "fit":
            callbacks += fit_callbacks(logs=bool(trainer_config.get("logger")))
        elif self._verb == "predict":
            kwargs["logger"] = False
            callbacks.append(PredictionWriter(self._get(self.config_init, "prediction")))
        if self._verb == "predict" or not trainer_config.get("logger"):
            self.save_config_callback = None  # without a run folder it would land in the working folder
        kwargs["callbacks"] = [*callbacks, *self._callbacks, self._begun]  # behind those that take up their state then
        if trainer_config.get("enable_checkpointing") is False:
            parser = self._parser(self._verb)
            parser.callback_keys = [key for key in parser.callback_keys if "checkpoint" not in key]
        try:
            return super().instantiate_trainer(**kwargs)
        except TypeError as error:
            raise UserError(f"trainer: {error}") from error

    def _run_subcommand(self, subcommand: str) -> None:
        resumed = self.config[subcommand].get("ckpt_path") if subcommand == "fit" else None
        with explained_start(self._begun, self.trainer, resumed):
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Start from weights alone, where the checkpoint has no state of a training to go on from."""
        if self._start is not None and self._start.weights_alone:
            self.model.network.load_state_dict(dict(self._start.saved.weights))
            self.config_init.fit.ckpt_path = None
        self._start = None  # its weights take memory

    def after_fit(self) -> None:
        """Say where the results are."""
        report_fit(self.trainer, self.config.fit.checkpoint.monitor, self.datamodule.root)

    def after_validate(self) -> None:
        """Print the scores and keep them as ``val_scores.json``."""
        report_validation(self.trainer, self.model.rgb_map)

    def after_test(self) -> None:
        """Keep the scores as ``test_scores.json``; `CaseScores` has printed them."""
        keep_scores(self.trainer, "test")

    def after_predict(self) -> None:
        """Say where the masks are, and what is missing."""
        (writer,) = (c for c in self.trainer.callbacks if isinstance(c, PredictionWriter))  # type: ignore[attr-defined]
        self.status = report_prediction(self.trainer, writer)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def run(
    verb: str, args: Sequence[str], trusted_packages: Sequence[str] = (), callbacks: Sequence[Callback] = ()
) -> int:
    """Run one of Lightning's verbs.

    Args:
        verb: fit, validate, test or predict.
        args: Its command line.
        trusted_packages: Packages that class paths may name, besides the usual ones.
        callbacks: Callbacks besides those of the configuration.

    Returns:
        Exit status: 0, or 1 where a part failed.
    """
    words = [word.replace(_SHORT, "--prediction.flag_below", 1) if word.startswith(_SHORT) else word for word in args]
    with ExitStack() as held:
        status = FlexUNetCLI([verb, *words], trusted_packages, held, callbacks).status
        leave_group()
        return status
