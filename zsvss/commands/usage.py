"""What ``--help`` says, without importing what the commands run: the texts of ``zsvss``, ``test`` and ``predict``."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zsvss.commands import options
from zsvss.commands.refusals import did_you_mean, fail

_WIDTH = 110
_LEFT = 34


class Usage(NamedTuple):
    """What the help of ``test`` or ``predict`` says first.

    Attributes:
        says: what the command does.
        examples: command lines, with what they are for.
        options: keys, what their values are called, and what they do. Defaults are added from the sources.
    """

    says: str
    examples: Sequence[tuple[str, str]]
    options: Sequence[tuple[str, str, str]]


_METHOD = (
    ("config", "NAME", "a config by name or path; given again: one more, such as fast.yaml or ablations/ward.yaml"),
    ("model.backbone", "CLASS", "the frozen diffusion model; Embedded ships with the package"),
    ("model.backbone.weights", "FOLDER", "a diffusers folder or a hub id"),
    ("model.context.num_clusters", "K", "the maximum number of segments at first; fewer are larger"),
    ("model.input_size", "[H,W]", "size at which the network sees the frames; larger is finer and slower"),
    ("model.modulation", "CLASS", "the third stage; null leaves it out: blocky borders, many times faster"),
    ("output", "FOLDER", "run folder (default: runs/<names of the configs>-<hash of the settings>)"),
)
_MACHINE = (
    ("trainer.accelerator", "NAME", "cpu or cuda"),
    ("trainer.devices", "N", "how many GPUs; each takes whole videos"),
    ("trainer.precision", "NAME", "32-true, bf16-true, 16-true, ..."),
)
USAGES: Mapping[str, Usage] = {
    "predict": Usage(
        "usage: zsvss predict VIDEO [--config NAME ...] [--key value ...]\n\n"
        "Segment a video file, a folder of numbered images, or a folder of either; no labels are needed.\n"
        "Writes masks, an overlay video and the list of segments into predictions/ of the run folder. Without a\n"
        "config it takes Stable Diffusion where its weights are on this machine, else the small model of the package.",
        (
            ("zsvss predict video.mp4", "the whole method with its defaults"),
            ("zsvss predict frames/ --output masks", "a folder of images; results below masks/"),
            ("zsvss predict video.mp4 --config predict.yaml", "with Stable Diffusion, fetched once (5 GB)"),
            ("zsvss predict video.mp4 --model.context.num_clusters 8", "fewer, larger segments"),
        ),
        (
            ("data.input", "PATH", "what to segment, as VIDEO; also a stream: a URL, or - for the standard input"),
            ("data.masks", "FOLDER", "masks of one or more frames, whose labels the video then gets"),
            ("data.shots", "null", "take the video for one shot; by default labels open anew at a cut"),
            *_METHOD,
            ("predictions.alpha", "0..1", "how strongly the overlay video is coloured"),
            ("predictions.video", "true|false", "write the overlay video"),
            *_MACHINE,
        ),
    ),
    "test": Usage(
        "usage: zsvss test --config NAME [--config ON_TOP ...] [--key value ...]\n\n"
        "Segment the videos of a benchmark and score them. Prints the table and writes metrics.json, videos.csv and a\n"
        "record of each finished video into the run folder. The same command resumes an interrupted run.",
        (
            ("zsvss test --config demo.yaml", "two generated videos; nothing to download"),
            ("zsvss test --config camvid_sd.yaml --data.root data/camvid", "a benchmark"),
            ("zsvss test --config camvid_sd.yaml --config ablations/no_refinement.yaml", "with a config on top"),
            ("zsvss test --config predict.yaml --data.input frames --data.masks truth", "your own video and masks"),
        ),
        (
            ("data", "CLASS", "the data set; VideoFolder is your own video"),
            ("data.root", "FOLDER", "where the benchmark lies"),
            ("data.input", "PATH", "of VideoFolder: a video, or a folder of images or videos"),
            ("data.masks", "FOLDER", "of VideoFolder: its ground truth"),
            ("data.limit_videos", "N", "use only the first N videos"),
            *_METHOD,
            ("model.naming", "CLASS", "how clusters get their class names"),
            ("results.per_class", "true|false", "print the table of classes too"),
            *_MACHINE,
        ),
    ),
}  # fmt: skip


def program(commands: Mapping[str, str]) -> str:
    """The help of the program.

    Args:
        commands: what each command does, by name.
    """
    rows = "\n".join(f"  {name:<10}{says}" for name, says in commands.items())
    return (
        "usage: zsvss COMMAND ...          (the same as python -m zsvss.run COMMAND ...)\n\n"
        "Zero-shot video semantic segmentation with frozen diffusion models: no training, no labels.\n\n"
        f"commands:\n{rows}\n\n"
        "start here:\n"
        "  zsvss predict video.mp4           segment your own video\n"
        "  zsvss test --config demo.yaml     score two generated videos; nothing to download\n\n"
        "`zsvss COMMAND --help` lists its options. Ctrl-C stops a run; the same command goes on where it stopped."
    )


def command(name: str, topic: str = "") -> str:
    """The help of ``test`` or ``predict``.

    Args:
        name: of the command.
        topic: ``all``, or how the names of the options begin that are to be listed, such as ``trainer``; "" for the
            options that matter first.
    """
    if topic:
        return _listed(topic)
    usage = USAGES[name]
    known = options.component_options({}) | options.fixed_options()
    lines = [usage.says, "", "examples:"]
    width = max(len(line) for line, _ in usage.examples) + 2
    lines += [f"  {line:<{width}}{says}" for line, says in usage.examples]
    lines += ["", "options that matter first:"]
    for key, value, says in usage.options:
        classes = f": {', '.join(options.subclasses(options.slots()[key]))}" if key in options.slots() else ""
        lines += _row(f"--{key} {value}", says + classes + _default(key, known[key]))
    return "\n".join(
        [
            *lines,
            "",
            f"All options: zsvss {name} --help all; of a part: --help data, --help model.backbone, --help trainer.",
        ]
    )


def _listed(topic: str) -> str:
    known = options.fixed_options() | options.component_options({})
    topic = topic.removeprefix("--")
    chosen = [key for key in known if topic == "all" or key == topic or key.startswith(f"{topic}.")]
    if not chosen:
        parts = {key.rpartition(".")[0] for key in known if "." in key}
        fail(f"there are no options of {topic!r}.{did_you_mean(topic, [*known, *parts, 'all'])}", 2)
    lines = []
    for key in sorted(chosen):
        classes = options.classes_with(key)
        of = f"of {', '.join(classes)}: " if classes else ""
        lines += _row(f"--{key}", of + _plain(known[key].help) + _default(key, known[key]))
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A docstring's text without its markup.

    >>> _plain("See :paramref:`~lightning.Trainer.devices`; ``None`` takes `all`.")
    'See devices; None takes all.'
    """
    return re.sub(r"`+", "", re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", text))


def _default(key: str, parameter: options.Parameter) -> str:
    """The default in brackets, where it says anything."""
    value = options.DEFAULT_CLASSES.get(key) or parameter.default
    if value in (None, "", "None"):
        return ""
    with_quotes = isinstance(_literal(value), str)
    return f" [{_literal(value) if with_quotes else value.lower() if value in ('True', 'False') else value}]"


def _literal(source: str) -> object:
    try:
        return ast.literal_eval(source)
    except ValueError:
        return None


def _row(left: str, right: str) -> list[str]:
    """A row of two columns; a left one that is too long has a line of its own."""
    wrapped = textwrap.wrap(right, _WIDTH - _LEFT - 2) or [""]
    lines = [f"  {left:<{_LEFT - 2}}"] if len(left) < _LEFT - 3 else [f"  {left}", " " * _LEFT]
    lines[-1] += wrapped[0]
    return [line.rstrip() for line in [*lines, *(" " * _LEFT + line for line in wrapped[1:])]]
