"""``zsvss bench``: the modes of the method, or all about a GPU, the reading of frames, the studio's page.

Only the arguments are read here, so that help and mistakes are told before PyTorch is imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zsvss.commands.refusals import OneLineParser

_MODES = ("published", "published, through disk", "exact", "fast, modulated", "fast")
_DTYPES = ("float32", "bfloat16", "float16")


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    if "--data-only" in arguments:
        options = _reading().parse_args(arguments)
        from zsvss.bench import reading_speed

        return reading_speed.run(options)
    if "--page" in arguments:
        options = _page().parse_args(arguments)
        from zsvss.bench import gpu_page

        return gpu_page.run(options)
    if "--studio" in arguments:
        options = _studio().parse_args(arguments)
        from zsvss.bench import studio

        return studio.run(options)
    options = _modes().parse_args(arguments)
    from zsvss.bench import modes

    return modes.run(options)


def _modes() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="zsvss bench",
        description="Measure the exact and the fast mode beside the published schedule, on generated frames.",
        epilog="Other benchmarks tell theirs: `zsvss bench --data-only --help` of reading frames from disk, "
        "`zsvss bench --page --help` of all that a GPU is to tell, `zsvss bench --studio --help` of the studio's page.",
    )
    parser.add_argument("--network", choices=("embedded", "sd21"), help="both on a GPU, embedded on a CPU, by default")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the frames")
    parser.add_argument("--frames", type=_positive, help="of the clip")
    parser.add_argument("--labels", type=_positive, nargs="+", help="numbers of labels, a case each")
    parser.add_argument("--present", type=float, nargs="+", help="shares of the labels in a frame, a case each")
    parser.add_argument(
        "--repeats",
        type=_positive,
        help="5, with sd21 on a GPU 3 and one of the published schedule, which is left out but for L = 10 or on demand",
    )
    parser.add_argument("--dtype", choices=_DTYPES, help="of the networks: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--device", help="cuda where there is one, else cpu, by default")
    parser.add_argument(
        "--modes", nargs="+", choices=_MODES, metavar="MODE", help=f"of {'; '.join(_MODES)}; exact is always one"
    )
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    return parser


def _page() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="zsvss bench",
        description="Measure all that a session on a GPU is to tell, and print it as a page of Markdown.",
    )
    parser.add_argument("--page", action="store_true", required=True, help="one page about one device")
    parser.add_argument("--network", choices=("embedded", "sd21"), default="sd21")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(448, 832))
    parser.add_argument("--frames", type=_positive, default=14)
    parser.add_argument("--labels", type=_positive, default=10)
    parser.add_argument("--dtype", choices=_DTYPES, default="bfloat16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=4.0, help="at most")
    parser.add_argument("--tests", type=Path, help="JUnit file of the GPU's tests, to be told on the page")
    parser.add_argument("--tests-status", type=int, default=0, help="exit status of these tests")
    parser.add_argument("--tests-limit", type=float, default=0.0, help="seconds after which they were to be stopped")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    return parser


def _reading() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="zsvss bench",
        description="Measure how fast frames and masks come from disk, beside plain Pillow and OpenCV loops.",
    )
    parser.add_argument("--data-only", action="store_true", required=True, help="measure the input pipeline alone")
    parser.add_argument("--root", type=Path, help="videos in VSPW's layout; generated if not given")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 853], metavar=("HEIGHT", "WIDTH"), help="generated")
    parser.add_argument("--num-videos", type=int, default=8)
    parser.add_argument("--num-frames", type=int, default=56, help="of each video")
    parser.add_argument(
        "--input-size", type=int, nargs=2, default=[448, 832], metavar=("HEIGHT", "WIDTH"), help="of the network"
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    return parser


def _studio() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="zsvss bench",
        description="Measure how long the studio lets a person wait, in headless Chromium on this machine.",
    )
    parser.add_argument("--studio", action="store_true", required=True, help="measure the studio's page")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"), help="generated")
    parser.add_argument("--frames", type=_positive, default=60, help="of the video")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    return parser


def _positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} found, a whole number from 1 up wanted")
    return int(text)
