"""The commands ``test`` and ``predict``: Lightning's command line, filled with this package's parts.

``zsvss test|predict --config X.yaml [--config ON_TOP.yaml] [--key value] ...``, after `zsvss.commands.before_torch`.

A component is chosen by its class, switched off by ``null`` and set by its constructor's arguments:
``--model.refinement null``, ``--data CamVid --data.root data/camvid``, ``--model.modulation.strength 10``.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import logging
import os
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args, get_type_hints

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger

import zsvss
from zsvss.callbacks.empty_run import RunFolder
from zsvss.callbacks.media import MediaStore
from zsvss.callbacks.prediction_writer import PredictionWriter
from zsvss.callbacks.progress import FrameProgressBar
from zsvss.callbacks.result_writer import ResultWriter
from zsvss.callbacks.resume import ResultStore
from zsvss.callbacks.timing import StageTiming
from zsvss.callbacks.tracking import WandbRecord
from zsvss.commands.allocator import keep_freed_memory
from zsvss.commands.config_files import config_paths
from zsvss.commands.default_config import with_config
from zsvss.commands.device import choose_device, choose_precision
from zsvss.commands.interruption import Interrupted, ending_in_order
from zsvss.commands.logs import log_to_file, quiet_console
from zsvss.commands.options import COMPONENTS, DEFAULT_CLASSES
from zsvss.commands.parser_messages import explain, refusal
from zsvss.commands.path_options import set_aside
from zsvss.commands.refusals import fail
from zsvss.commands.wandb_mode import prepare_wandb
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.input_kinds import without_userinfo
from zsvss.module import VideoSegmentation
from zsvss.results.atomic_files import check_folder
from zsvss.results.fingerprint import code_version
from zsvss.results.terminal_tables import failure_rows, show

_log = logging.getLogger(__name__)

# Exit code of a run that ended although some videos have no result.
FAILURES = 3

_TRAINER_DEFAULTS: dict[str, Any] = {
    "use_distributed_sampler": False,  # the datamodule gives whole videos to each process
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
# What changes where and how fast a run is computed, but not its numbers.
_NOT_IN_RUN_NAME = ("trainer", "output", "results", "predictions", "media", "config")


class _Parser(LightningArgumentParser):
    """Says what was wrong in one message instead of printing every option."""

    paths: Mapping[str, str] = MappingProxyType({})
    """Values that were set aside, by their keys."""

    def dump(self, cfg: Any, *args: Any, **kwargs: Any) -> str:
        """The settings as YAML, with the paths in their places: ``--print_config`` prints before parsing ends."""
        for key, path in self.paths.items():
            cfg[key] = path
        text: str = super().dump(cfg, *args, **kwargs)
        return without_userinfo(text)  # what is written need not know a camera's password

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        known = {option.removeprefix("--") for parser in _subparsers(self) for option in parser._option_string_actions}
        options = {option for option in known if not option.endswith(".help")}
        fail(explain(message, options, slots()), 2)


class CommandLine(LightningCLI):
    """LightningCLI with `VideoSegmentation` as its model and any `VideoDataModule` as its data."""

    folder: RunFolder | None = None
    """The run's; known when the settings are."""
    _precision_note: tuple[int, str] | None = None

    def __init__(self, arguments: Sequence[str]) -> None:
        self.config_names = [Path(path).stem for path in config_paths(arguments)]
        super().__init__(
            VideoSegmentation,
            VideoDataModule,
            subclass_mode_data=True,
            args=list(arguments),
            trainer_defaults=_TRAINER_DEFAULTS,
            parser_class=_Parser,
            parser_kwargs={"parser_mode": "omegaconf"},
            save_config_kwargs={"overwrite": True},
            seed_everything_default=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands without the arguments that make no sense here."""
        skipped = {"model", "dataloaders", "datamodule", "ckpt_path", "weights_only", "verbose", "return_predictions"}
        return {"test": skipped, "predict": skipped}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and what a run writes; fill the method's slots."""
        parser.add_argument(
            "--output", type=str | None, default=None, help="Run folder (default: runs/<names of the configs>-<hash>)."
        )
        parser.add_lightning_class_args(ResultWriter, "results")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(MediaStore, "media")
        parser.set_defaults({slot: {"class_path": name} for slot, name in DEFAULT_CLASSES.items()})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse everything but paths, which are no YAML."""
        others, paths = set_aside(args)
        for subparser in _subparsers(parser)[1:]:
            subparser.paths = paths
        super().parse_arguments(parser, others)
        for key, path in paths.items():
            self.config[self.config.subcommand][key] = path

    def before_instantiate_classes(self) -> None:
        """Choose the run folder, a device that can compute in float64, and a precision that suits the device."""
        config = self.config[self.subcommand]
        choose_device(config.trainer)
        self._precision_note = choose_precision(config.trainer, config.model.backbone)
        config.output = str(Path(config.output).expanduser() if config.output else Path("runs") / self._run_name())
        check_folder(Path(config.output), "output")
        config.trainer.default_root_dir = config.output
        type(self).folder = RunFolder(Path(config.output), str(self.subcommand))
        prepare_wandb(config.trainer.get("logger"), config.output, self.config_names)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Add what every run has: the CSV log, the clock, the progress bar, on a CPU an allocator that suits it."""
        trainer = self.config_init[self.subcommand].trainer
        output = trainer.default_root_dir
        chosen = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        loggers = [logger for logger in chosen if logger not in (None, True, False)]
        callbacks = [*(trainer.callbacks or []), StageTiming(output)]
        if trainer.enable_progress_bar is not False:
            callbacks.append(FrameProgressBar())
        assert self.folder is not None
        callbacks += [self.folder, ResultStore(self._settings()), WandbRecord(self._settings())]
        loggers = [CSVLogger(output, name="", version=""), *loggers]
        try:
            built: Any = super().instantiate_trainer(logger=loggers, callbacks=callbacks, **kwargs)
        except (TypeError, MisconfigurationException) as error:  # of values that only the machine can judge
            raise ValueError(f"trainer: {' '.join(str(error).split())}") from error
        if built.strategy.root_device.type == "cpu":
            keep_freed_memory()
        built.callbacks.sort(key=_place)
        return built

    def test(self, **kwargs: Any) -> None:
        """Score; `ResultWriter` prints the table."""
        with self._begun():
            self.trainer.test(**kwargs, verbose=False)
        self._say("results", self.trainer.default_root_dir)

    def predict(self, **kwargs: Any) -> None:
        """Segment; `PredictionWriter` writes clip by clip, nothing is kept."""
        with self._begun():
            self.trainer.predict(**kwargs, return_predictions=False)
        if self.trainer.is_global_zero and self.model.failures:
            show(failure_rows(self.model.failures))
        self._say("predictions", self.config_init[self.subcommand].predictions.folder)

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """The log is kept, and the videos are there: others of several processes would wait for one that finds none."""
        with log_to_file(self.trainer.default_root_dir, self.trainer.global_rank):
            if self._precision_note is not None:
                _log.log(*self._precision_note)
            self.datamodule.prepare_data()
            yield

    def _say(self, what: str, folder: object) -> None:
        if self.trainer.is_global_zero:
            print(f"{what} in {folder}")

    def _settings(self) -> dict[str, Any]:
        """The resolved config as plain values."""
        settings: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_none=False))[self.subcommand]
        return settings

    @property
    def exit_code(self) -> int:
        """`FAILURES` if a video has no result; only the first process tells, when all have ended."""
        return FAILURES if self.trainer.is_global_zero and self.model.failures else 0

    @property
    def digest(self) -> str:
        """Hash of what decides the result, so that other settings get another folder."""
        dump = self._settings()
        decisive = {key: value for key, value in dump.items() if key not in _NOT_IN_RUN_NAME}
        decisive |= {"precision": dump["trainer"]["precision"], "code": code_version()}
        return hashlib.sha256(yaml.safe_dump(decisive, sort_keys=True).encode()).hexdigest()[:8]

    def _run_name(self) -> str:
        """Names of the configs and the digest."""
        return "-".join([*(self.config_names or [str(self.subcommand)]), self.digest])


class Rehearsal(CommandLine):
    """Everything up to the run itself: settings are parsed and, by `build`, parts are built; no file is written."""

    def instantiate_classes(self) -> None:
        """Left to `build`, so that the run's settings and digest are known even if a part cannot be built."""

    @property
    def data_settings(self) -> dict[str, Any]:
        """The settings of the data, as plain values."""
        settings: dict[str, Any] = self._settings()["data"]
        return settings

    def build(self) -> Rehearsal:
        """Build the parts and return this; raises what their constructors raise."""
        super().instantiate_classes()
        return self

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def main(arguments: Sequence[str]) -> int:
    """Run ``test`` or ``predict``; returns the exit code.

    Args:
        arguments: the command's name, and its options with configs as paths.
    """
    quiet_console()
    CommandLine.folder = None
    try:
        with ending_in_order(_kept):
            import_components()
            return CommandLine(with_config(arguments)).exit_code
    except Interrupted:
        _withdraw()
        raise
    except (ValueError, OSError, torch.cuda.OutOfMemoryError) as error:
        _log.debug("the run stopped", exc_info=True)
        if os.environ.get("ZSVSS_TRACEBACK"):
            raise
        _withdraw()
        fail(_full(error) or refusal(str(error)), 1)


def _kept() -> str:
    """What a run that is stopped now leaves."""
    folder = CommandLine.folder
    return (
        "stopped before the run began: nothing was written; start the same command again"
        if folder is None
        else folder.kept()
    )


def _withdraw() -> None:
    if CommandLine.folder is not None:
        CommandLine.folder.withdraw()


def _full(error: Exception) -> str | None:
    """What to do about a full disk or a GPU that is too small, if that is what stopped the run."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"the GPU's memory is too small even for the smallest batch ({str(error).partition('. ')[0]}): give a "
            "smaller model.input_size or data.clip_length, or another precision by --trainer.precision"
        )
    if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return (
        f"the disk is full ({error}). Every video that was finished is recorded: free some space and start the same "
        "command again; it resumes with the others"
    )


def _place(callback: Callback) -> int:
    """Order of callbacks: a video's images are written before its record, and a folder is checked before use."""
    places: list[tuple[type[Callback], ...]] = [(PredictionWriter, MediaStore), (ResultStore,), (), (WandbRecord,)]
    return next((place for place, types in enumerate(places) if isinstance(callback, types)), places.index(()))


def import_components() -> None:
    """Import every module of the component packages, so that their classes are known by bare name."""
    for name in COMPONENTS:
        package = importlib.import_module(f"{zsvss.__name__}.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def slots() -> dict[str, type]:
    """Base class of what may be put into each key of the model, and into ``data``."""
    hints = get_type_hints(VideoSegmentation.__init__)
    classes = {f"model.{name}": (get_args(hint) or (hint,))[0] for name, hint in hints.items()}
    return {"data": VideoDataModule, "trainer.logger": Logger, "trainer.callbacks": Callback} | {
        key: cls for key, cls in classes.items() if isinstance(cls, type)
    }


def _subparsers(parser: Any) -> list[Any]:
    subcommands = getattr(parser, "_subcommands_action", None)
    return [parser, *(subcommands.choices.values() if subcommands else [])]
