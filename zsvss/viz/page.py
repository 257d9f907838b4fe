"""The report as one self-contained HTML page: templates by Jinja, charts by Vega-Lite, no network.

``templates/`` holds the page, its style and its scripts; they draw from the plain values of `page_data`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from zsvss.metrics import class_table, total_confusion, video_table
from zsvss.results.folder import Run, comparability
from zsvss.results.summary import caveats
from zsvss.viz.browser import browser_videos
from zsvss.viz.tables import ablation_table, common_scores, result_table

_TITLES = {
    "J&F": "mean of J and F",
    "J": "region similarity: IoU of an object's masks, mean over frames, then over objects",
    "J_recall": "share of the frames with J above 0.5",
    "J_decay": "J of the first quarter of the frames less J of the last",
    "F": "contour accuracy: F-measure of an object's contour, mean over frames, then over objects",
    "F_recall": "share of the frames with F above 0.5",
    "F_decay": "F of the first quarter of the frames less F of the last",
    "fwIoU": "frequency-weighted IoU",
    "mIoU": "mean IoU over all labelled pixels",
    "mIoU_video_mean": "mean of the videos' own mIoUs",
    "pixel_accuracy": "share of the labelled pixels that are right",
}
_SCRIPTS = ("basics", "charts", "painting", "browser", "start")  # in this order, the body of one function
_STAGE_TITLES = {"record": "feature pass", "kmeans": "K-means", "knn": "KNN", "context": "scene context, rest"}


def render_page(runs: Sequence[Run], *, max_side: int = 320, max_frames: int = 100) -> str:
    """The page.

    Args:
        runs: to show; differences are to the first, until the reader chooses another.
        max_side: longest side of the video browser's images.
        max_frames: of a video at most the first so many.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zsvss.viz"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # and in our order, not sorted
    source = jinja2.PackageLoader("zsvss.viz").get_source
    return environment.get_template("report.html").render(
        runs=runs,
        scores=common_scores(runs),
        titles=_TITLES,
        warnings=[*comparability(runs), *_incomplete(runs)],
        ablation=ablation_table(runs),
        results=result_table(runs),
        data=page_data(runs, max_side, max_frames),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(source(environment, "report.css")[0]),
        script=Markup("\n".join(source(environment, f"script/{name}.js")[0] for name in _SCRIPTS)),
        library=_vega(),
    )


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as the content of a script element."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"))


def page_data(runs: Sequence[Run], max_side: int, max_frames: int) -> dict[str, Any]:
    """What the script draws, as plain values; null where nothing qualifies."""
    return {
        "runs": [_run_data(run) for run in runs],
        "scores": common_scores(runs),
        # In the order of the run that has most of them.
        "stages": {stage: _STAGE_TITLES.get(stage, stage) for stage in max((run.timing for run in runs), key=len)},
        "videos": browser_videos(runs, max_side, max_frames),
    }


def _run_data(run: Run) -> dict[str, Any]:
    classes = class_table(run.results, run.facts["classes"])
    confusion = total_confusion(run.results)
    cells = confusion.nonzero()
    counts = confusion[cells[:, 0], cells[:, 1]]
    return {
        "name": run.name,
        "scores": _plain(run.scores),
        "classes": [_plain(asdict(row)) for row in classes if row.num_ground_truth or row.num_predicted],
        "class_names": run.facts["classes"],
        "videos": [_plain(row) for row in video_table(run.results)],
        "confusion": [[*cell, count] for cell, count in zip(cells.tolist(), counts.tolist(), strict=True)],
        "timing": dict(run.timing),
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _incomplete(runs: Sequence[Run]) -> list[str]:
    """What is missing in the numbers of each run, and what makes them mean less."""
    said = []
    for run in runs:
        failures, unfinished = run.summary["failures"], run.summary["unfinished"]
        if unfinished:
            expected = run.summary["num_videos_expected"]
            said.append(f"{run.name}: {len(unfinished)} of {expected} videos are missing; its numbers leave them out.")
        said += [f"{run.name}: {video} has no result: {reason}" for video, reason in failures.items()]
        said += [f"{run.name}: {sentence}." for sentence in caveats(run.summary)]
    return said
