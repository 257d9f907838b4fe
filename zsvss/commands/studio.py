"""``zsvss studio RUN | VIDEO``: a local page to name, mend, propagate and export segments.

A video is segmented first, by ``zsvss predict`` in a process of its own, and shown as its clips finish.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zsvss.commands.config_files import config_folders, find_config
from zsvss.commands.interruption import answer_other_ends, before_leaving, leaving
from zsvss.commands.refusals import OneLineParser, fail
from zsvss.data.class_lists import CAMVID_COLORS, CITYSCAPES_LABELS, COCO_CLASSES, VSPW_CLASSES
from zsvss.results.predictions import ANNOTATION, FILE, PredictionsError, find_predictions, read_json

# What needs PyTorch or the optional extra is imported where it is used: help and mistakes are told at once.
if TYPE_CHECKING:
    from zsvss.segmenter import VideoSegmenter
    from zsvss.studio.live_segmentation import Segmenting
    from zsvss.studio.open_video import Desk

EMBEDDED = "predict_masks_embedded.yaml"
"""What the studio looks at videos with where they were segmented by the model that ships with the package."""
_CLOSED = "the studio is closed; the same command goes on with what was annotated"
_LIBRARIES = ("filelock", "starlette", "uvicorn")


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if missing := [name for name in _LIBRARIES if find_spec(name) is None]:
        fail(f'zsvss studio needs {", ".join(missing)}, not installed here: pip install "zsvss[studio]"', 1)
    try:
        taxonomies = _taxonomies(options.classes)
        is_run = _is_run(options.source)
        if is_run and others:
            fail(f"{options.source} is a run, which is segmented already; {' '.join(others)} is for a video", 2)
        if not is_run and not options.source.exists():
            fail(f"{options.source} not found; give a run folder, a video file or a folder of numbered images", 1)
        with leaving(lambda: "stopped before the studio was open: nothing was changed"):
            desks, segmenting = _of_run(options.source) if is_run else _of_video(options, others)
        return _serve(desks, segmenting, taxonomies, options)
    except (ValueError, OSError) as error:
        fail(str(error), 1)


def _of_run(run: Path) -> tuple[list[Desk], Segmenting | None]:
    """The videos of a run."""
    from zsvss.studio.open_video import Desk

    folders = find_predictions(run)
    names = [
        str(json.loads((folder / FILE).read_text(encoding="utf-8")).get("video", folder.name)) for folder in folders
    ]
    desks = [Desk(name, folder, run) for name, folder in zip(names, folders, strict=True)]
    if len(desks) == 1:
        desks[0].session()  # what is wrong with it is told here
    return desks, None


def _of_video(options: argparse.Namespace, others: Sequence[str]) -> tuple[list[Desk], Segmenting | None]:
    """The videos of a place, which are being segmented unless they have been before."""
    from zsvss.data.sources import find_sources, video_name
    from zsvss.results.atomic_files import safe_folder
    from zsvss.studio.live_segmentation import Segmenting, live_videos
    from zsvss.studio.open_video import Desk

    source: Path = options.source
    output: Path = options.output or Path("runs") / f"studio-{video_name(source)}"
    predictions = output / "predictions"
    folders = {one: predictions / str(safe_folder(video_name(one))) for one in find_sources(source)}
    done = [_is_segmented(folder, one) for one, folder in folders.items()]
    if all(done):
        print(f"{output} holds the segments of {source} already; delete it to segment anew")
        return _of_run(output)
    segmenting = Segmenting([str(source), "--output", str(output), *others])
    before_leaving(segmenting.end)
    answer_other_ends(lambda: _CLOSED)
    try:
        lives = live_videos(source, predictions, segmenting)
    except BaseException:
        segmenting.stop()
        raise
    return [Desk(live.name, live.folder, output, live) for live in lives], segmenting


def _is_segmented(folder: Path, video: Path) -> bool:
    """Whether all of a video is segmented.

    Raises:
        ValueError: the folder is of another video of this name, or of a part of this one that a person has annotated.
    """
    if not (folder / FILE).is_file():
        return False
    from zsvss.studio.live_segmentation import source_of

    content = read_json(folder / FILE)
    of = Path(content["source"]["path"])
    if of.resolve() != Path(source_of(video).path).resolve():
        raise ValueError(f"{folder} holds the segments of {of}, not of {video}; give another run folder with --output")
    if content["complete"]:
        return True
    if (folder / ANNOTATION / "studio.jsonl").exists():
        raise ValueError(
            f"{folder} holds {content['num_frames']} of {content['video_length']} frames, and your annotation of them: "
            f"open these with zsvss studio {folder}, or segment all of it into another --output"
        )
    return False


def _serve(
    desks: Sequence[Desk], segmenting: Segmenting | None, taxonomies: dict[str, list[str]], options: argparse.Namespace
) -> int:
    """Serve the page until it is stopped."""
    import uvicorn

    from zsvss.studio.model import Model
    from zsvss.studio.server import Studio, application

    model = Model(segmenter_of(desks[0].folder, options.config))
    studio = Studio(desks, model, taxonomies)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", options.port))
            listening.listen()  # a browser that is faster than the server waits
        except OSError as error:
            raise ValueError(f"--port {options.port} cannot be used ({error.strerror}); give another one") from error
        port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
        served = application(studio, token, port)
        settings = uvicorn.Config(
            served, log_level="warning", access_log=False, timeout_graceful_shutdown=2, lifespan="off"
        )
        server = uvicorn.Server(settings)
        studio.closing = lambda: server.should_exit
        address = f"http://127.0.0.1:{port}/?token={token}"
        print(f"the studio is open: {address}\nCtrl-C closes it; every step is kept as it is made", flush=True)
        if options.browser and (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
        ):
            webbrowser.open(address)
        try:
            with leaving(lambda: _CLOSED):
                server.run(sockets=[listening])
        finally:
            model.close()
            for desk in desks:
                desk.close()
            if segmenting is not None:
                segmenting.stop()
    return 0


def segmenter_of(folder: Path, config: str | None = None) -> Callable[[], VideoSegmenter]:
    """What builds the segmenter with which a video's run was made; weights are read by its first use.

    Args:
        folder: of the video's predictions, below a run folder.
        config: to take in place of the run's.
    """

    def build() -> VideoSegmenter:
        from zsvss.commands.lightning import Rehearsal, import_components
        from zsvss.commands.logs import quiet_console

        quiet_console()
        import_components()
        chosen = find_config(config) if config else _config_of(folder)
        words = ["predict", "--config", str(chosen), "--data.input", str(folder)]
        try:
            built = Rehearsal(words).build()
        except SystemExit as error:  # its words are in the terminal
            raise ValueError(f"{chosen} describes no network that this machine can build") from error
        module: Any = built.model
        module.backbone.check()
        module.backbone.load()
        plugin = built.trainer.strategy.precision_plugin
        module = plugin.convert_module(module.eval()).to(built.trainer.strategy.root_device)
        segmenter: VideoSegmenter = module.segmenter
        return segmenter

    return build


def _config_of(folder: Path) -> Path:
    """The config of the run that a video's predictions belong to; the studio's own for the embedded backbone."""
    for place in _up_to_the_run(folder.resolve()):
        with suppress(OSError, yaml.YAMLError, KeyError, TypeError):
            content = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
            if not str(content["model"]["backbone"]["class_path"]).endswith("Embedded"):
                return place / "config.yaml"
            break
    return find_config(EMBEDDED)


def _up_to_the_run(folder: Path) -> Iterator[Path]:
    """The folders that a video's lies in, from within; the last one holds ``predictions``."""
    for below, place in zip((folder, *folder.parents), folder.parents, strict=False):
        yield place
        if below.name == "predictions":
            return


def _is_run(source: Path) -> bool:
    with suppress(PredictionsError):
        return bool(find_predictions(source))
    return False


def _taxonomies(classes: Path | None) -> dict[str, list[str]]:
    """Names of classes to complete, by what they are from."""
    known: dict[str, Sequence[str]] = {
        "COCO": COCO_CLASSES,
        "VSPW": VSPW_CLASSES,
        "Cityscapes": tuple(CITYSCAPES_LABELS),
        "CamVid": tuple(CAMVID_COLORS),
    }
    own = {} if classes is None else {classes.name: _own_classes(classes)}
    return {name: list(names) for name, names in (own | known).items()}


def _own_classes(path: Path) -> list[str]:
    from zsvss.studio.request_fields import clean_name

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"--classes: {path} cannot be read ({error}); give a list of names, as YAML or JSON"
        ) from error
    if isinstance(content, str):  # one name a line
        content = path.read_text(encoding="utf-8").splitlines()
    if isinstance(content, dict):
        content = list(content.values())
    if not isinstance(content, list) or not content:
        raise ValueError(f"--classes: {path} holds no list of names; write one name a line")
    return [clean_name(str(name), f"--classes: {path}") for name in content if str(name).strip()]


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="zsvss studio",
        description="Open a local page to name segments, mend them, propagate what was mended, score and export. "
        "Options of `zsvss predict`, such as --model.context.num_clusters 8, go to the segmentation of a VIDEO.",
    )
    parser.add_argument(
        "source", type=Path, metavar="RUN|VIDEO",
        help="run folder of predict, or a video file or folder of images, which is segmented first",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="run folder of a VIDEO (default: runs/studio-<its name>)")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names to complete: one a line, or YAML or JSON")
    known = ", ".join(str(folder) for folder in config_folders()[-1:])
    parser.add_argument(
        "--config", metavar="NAME",
        help=f"config of the network that propagates and splits (default: the run's, or {EMBEDDED} in {known})",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any that is free)")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="open no browser")
    return parser
