"""Run folders read back: the numbers, the settings behind them, the times and the media of a test run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsvss.metrics import VideoResult, fold_results, headline_scores
from zsvss.results.media import VideoMedia, read_media
from zsvss.results.records import RecordFolder
from zsvss.results.summary import summarize

_RECORDS = Path("records") / "test"
_HASH = re.compile(r"-[0-9a-f]{8}$")

COMPONENTS = {
    "context": "Scene context",
    "refinement": "Refinement",
    "modulation": "Modulation",
    "modulation.blend": "Blending",
    "modulation.inject": "Injection",
}
"""Parts of the method that an ablation switches off, by the key of `Run.settings`, in the order of the method."""

# The paper's class of each part: another class is none of its components.
_PAPER = {"context": "KNNSceneContext", "refinement": "CorrespondenceRefinement", "modulation": "MaskedModulation"}
# What runs in place of a component that is switched off, where a config names it.
_STAND_INS = {"context": "PerFrameClustering", "modulation": "NearestUpsampling"}


@dataclass(frozen=True)
class Run:
    """A test run, finished or not."""

    name: str
    folder: Path
    summary: Mapping[str, Any]
    """Content of ``metrics.json``, folded anew from the records."""
    results: Sequence[VideoResult]
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    """What decides the numbers, by short key (see `short_key`), without versions of code and weights."""
    damaged: Mapping[str, str]
    """Records that cannot be used, by file name, and why."""
    timing: Mapping[str, float]
    """Seconds per frame of each stage, in the first process; empty where unknown."""
    media: Sequence[VideoMedia]

    @property
    def scores(self) -> dict[str, float]:
        """The scores of 0..1, those that papers print first; NaN where nothing qualifies."""
        numbers = {name.removeprefix("test/"): value for name, value in self.summary["numbers"].items()}
        first = headline_scores(numbers)
        others = [name for name in numbers if name not in first and not name.startswith("num_")]
        return {name: numbers[name] for name in first + others}

    @property
    def components(self) -> dict[str, bool]:
        """Whether each of `COMPONENTS` is there, in its paper's class, and switched on."""
        there = {part: plain(self.settings.get(part)) == name for part, name in _PAPER.items()}
        return {key: there[key.partition(".")[0]] and self.settings.get(key) is not False for key in COMPONENTS}

    @property
    def title(self) -> str:
        """Its name, with what it is over if that is not all videos."""
        finished, expected = self.summary["numbers"]["test/num_videos"], self.summary["num_videos_expected"]
        return self.name if self.is_complete else f"{self.name} ({finished} of {expected} videos)"

    @property
    def is_complete(self) -> bool:
        """Whether the numbers are over all videos."""
        return not (self.summary["failures"] or self.summary["unfinished"])


class EmptyRunError(ValueError):
    """A run of which no video is finished."""


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run folder.

    Args:
        folder: of a test run, finished or not.
        name: by which to call it; by default the folder's.

    Raises:
        EmptyRunError: no video is finished.
        ValueError: its ``run.json`` or its media are damaged.
    """
    if not _is_run(folder):
        raise EmptyRunError(f"{folder} holds no results of a test run yet")
    records = RecordFolder(folder / _RECORDS)
    run = records.run()
    found, damaged = records.read()
    failures = {video: reason for video, reason in records.read_failures().items() if video not in found}
    results = [VideoResult.from_dict(found[video]["result"]) for video in run["facts"]["videos"] if video in found]
    if not results:
        raise EmptyRunError(f"{folder}: no video is finished, so there is nothing to report; start the run again")
    return Run(
        name=name or folder.resolve().name,
        folder=folder,
        summary=summarize(results, fold_results(results), run["facts"], failures),
        results=results,
        facts=run["facts"],
        settings=_settings(run["fingerprint"]),
        damaged=damaged,
        timing=_timing(folder),
        media=read_media(folder),
    )


def read_runs(found: Mapping[str, Path]) -> tuple[list[Run], dict[str, str]]:
    """Read the run folders of `find_runs`.

    Returns:
        The runs, and of those that have nothing to show yet why, by name.

    Raises:
        ValueError: ``run.json`` or the media of a run are damaged.
    """
    runs: list[Run] = []
    empty: dict[str, str] = {}
    for name, folder in found.items():
        try:
            runs.append(read_run(folder, name))
        except EmptyRunError as error:
            empty[name] = str(error)
    return runs, empty


def find_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Run folders by name; a folder of run folders, such as a sweep's, stands for those in it.

    A sweep's cells are all listed, also those that have no results yet. Names are those of the sweep's cells, or the
    folders' without the hash at their end where they stay different.

    Raises:
        FileNotFoundError: a folder is of neither a test run nor a sweep, and holds no folders of test runs.
    """
    named: list[tuple[str, Path]] = []
    for folder in folders:
        inside = [("", folder)] if _is_run(folder) else _cells(folder)
        if not inside:
            raise FileNotFoundError(
                f"{folder} holds no results of a test run, nor folders that do (there is no {_RECORDS / 'run.json'})"
            )
        named += [pair for pair in inside if pair[1] not in [path for _, path in named]]
    short = [name or _HASH.sub("", path.resolve().name) for name, path in named]
    long = [path.resolve().name for _, path in named]
    names = [
        brief if short.count(brief) == 1 else whole if long.count(whole) == 1 else str(path)
        for brief, whole, (_, path) in zip(short, long, named, strict=True)
    ]
    return dict(zip(names, (path for _, path in named), strict=True))


def short_key(key: str) -> str:
    """A setting's key without what only the parser needs.

    >>> short_key("model.context.init_args.num_clusters"), short_key("data.init_args.split")
    ('context.num_clusters', 'data.split')
    >>> short_key("model.refinement.class_path"), short_key("precision")
    ('refinement', 'precision')
    """
    return key.removeprefix("model.").replace(".init_args", "").removesuffix(".class_path")


def differing_settings(runs: Sequence[Run]) -> list[list[str]]:
    """For each run its settings that are not the same in all runs, beside the switches of `COMPONENTS`, as text.

    Of a part with a column only another class than the paper's is told, also where all runs have it, and what differs
    between runs of one class.
    """

    def is_told(key: str, run: Run) -> bool:
        part = key.partition(".")[0]
        peers = runs
        if part in _PAPER:
            if key in COMPONENTS and run.components[part]:
                return False
            if plain(run.settings.get(part)) in ("none", _STAND_INS.get(part)):
                return False
            if key == part:
                return True
            peers = [other for other in runs if other.settings.get(part) == run.settings.get(part)]
        return len({json.dumps(other.settings.get(key)) for other in peers}) > 1

    told = [[key for key in sorted(run.settings) if is_told(key, run)] for run in runs]
    return [[f"{key} = {plain(run.settings[key])}" for key in keys] for run, keys in zip(runs, told, strict=True)]


def comparability(runs: Sequence[Run]) -> list[str]:
    """Why the numbers of the runs should not be compared: one sentence a reason."""
    reasons = []
    for what, key in [
        ("data sets", "dataset"),
        ("class lists", "taxonomy"),
        ("consistency protocols", "consistency"),
        ("protocols of J and F", "objects"),
    ]:
        values = sorted({str(run.summary[key]) for run in runs})
        if len(values) > 1:
            reasons.append(f"The runs have different {what}: {', '.join(values)}.")
    namings = sorted({str(run.summary["naming"]["name"]) for run in runs})
    if len(namings) > 1:
        reasons.append(f"The runs name clusters by different protocols: {', '.join(namings)}.")
    if len({run.summary["backbone"] for run in runs}) > 1:
        backbones = ", ".join(sorted({str(run.summary["backbone"]) for run in runs}))
        reasons.append(f"The runs have different backbones: {backbones}.")
    if len({tuple(sorted(result.name for result in run.results)) for run in runs}) > 1:
        reasons.append("The numbers of the runs are over different videos.")
    return reasons


def plain(value: Any) -> str:
    """A setting's value as people write it.

    >>> plain("zsvss.metrics.HungarianNaming"), plain([8, 16]), plain(None), plain(0.5)
    ('HungarianNaming', '8, 16', 'none', '0.5')
    """
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value).rpartition(".")[2] if isinstance(value, str) else str(value)


def best(runs: Sequence[Run], score: str) -> float:
    """The highest score of the runs whose numbers are over all videos; NaN if there is none."""
    values = [run.scores[score] for run in runs if run.is_complete]
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _settings(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {
        short_key(key): value for key, value in fingerprint.items() if key.startswith(("model.", "data.", "precision"))
    }


def _is_run(folder: Path) -> bool:
    return (folder / _RECORDS / "run.json").is_file()


def _cells(folder: Path) -> list[tuple[str, Path]]:
    """Name, empty for the folder's own, and folder of the runs of a sweep in its order, or of a folder of runs."""
    try:
        cells = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["cells"]
        return [(str(cell["name"]), folder / Path(cell["folder"]).name) for cell in cells]
    except FileNotFoundError:
        return [("", path) for path in sorted(folder.glob("*")) if _is_run(path)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'sweep.json'} is damaged; start the sweep again") from error


def _timing(folder: Path) -> dict[str, float]:
    try:
        seconds: dict[str, float] = json.loads((folder / "timing.json").read_text(encoding="utf-8"))[
            "seconds_per_frame"
        ]
    except (OSError, ValueError, KeyError):
        return {}
    return seconds
