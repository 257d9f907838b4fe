"""The report as a self-contained HTML page: templates by Jinja, charts by Vega-Lite, no network.

``templates/`` holds the pages of test runs and of predictions, their style and their scripts; they draw from plain
values. A page with many videos has them in files beside it, see `zsvss.viz.page_parts`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
import vl_convert
from markupsafe import Markup

from zsvss.metrics import class_table, total_confusion, video_table
from zsvss.results.run_folder import Run, comparability
from zsvss.results.summary import caveats
from zsvss.viz.page_parts import PageVideo, Parts
from zsvss.viz.paper_tables import ablation_table, common_scores, result_table
from zsvss.viz.predicted_videos import PredictedRun, predicted_videos
from zsvss.viz.tested_videos import browser_videos

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
_SCRIPTS = ("dom", "basics", "view", "names")  # of all pages; with those of a page the body of one function
_PANELS = {
    "frame": "Frame",
    "truth": "Ground truth",
    "clusters": "Clusters",
    "coarse": "1 · Scene context",
    "refined": "2 · Refined",
    "final": "3 · Final",
    "difference": "Difference",
}
_FRAMEWORK = 200_000  # characters of a page without data and library, at most, and what tags and escapes add
_STAGE_TITLES = {"record": "feature pass", "kmeans": "K-means", "knn": "KNN", "context": "scene context, rest"}


def render_page(runs: Sequence[Run], *, max_side: int = 320, max_frames: int = 100, parts: Parts | None = None) -> str:
    """The page of test runs.

    Args:
        runs: to show; differences are to the first, until the reader chooses another.
        max_side: longest side of the video browser's images.
        max_frames: of a video at most the first so many.
        parts: where videos go if the page would grow too large; without, they stay in the page.
    """
    data = page_data(runs)
    data |= _placed(browser_videos(runs, max_side, max_frames), parts, len(json.dumps(data)) + len(_vega()))
    return _render(
        "report.html",
        ("results", "charts", "pictures", "browser", "keys", "start"),
        data,
        runs=runs,
        scores=common_scores(runs),
        titles=_TITLES,
        warnings=[*comparability(runs), *_incomplete(runs)],
        ablation=ablation_table(runs),
        results=result_table(runs),
        library=_vega(),
        panels=_PANELS,
    )


def render_predictions(
    runs: Sequence[PredictedRun], *, max_side: int = 320, max_frames: int = 100, parts: Parts | None = None
) -> str:
    """The page of predictions, which have no ground truth.

    Args:
        runs: to show.
        max_side: longest side of the video browser's images.
        max_frames: of a video at most the first so many.
        parts: where videos go if the page would grow too large; without, they stay in the page.
    """
    data = {"runs": [{"name": run.name, "classes": [], "videos": []} for run in runs], "scores": []}
    data |= _placed(predicted_videos(runs, max_side, max_frames), parts, 0)
    panels = {"frame": "Frame", "final": "Segments"}
    scripts = ("pictures", "browser", "segments", "keys", "start")
    return _render("predictions.html", scripts, data, runs=runs, panels=panels)


def _placed(videos: Iterable[PageVideo], parts: Parts | None, others: int) -> dict[str, Any]:
    """The videos of a page, and the folder of their parts."""
    if parts is None:
        return {"videos": list(videos), "parts": None}
    return {"videos": parts.place(videos, others + _FRAMEWORK), "parts": quote(parts.folder.name)}


def _render(template: str, scripts: Sequence[str], data: Mapping[str, Any], **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zsvss.viz"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # and in our order, not sorted
    source = jinja2.PackageLoader("zsvss.viz").get_source
    script = "\n".join(source(environment, f"script/{name}.js")[0] for name in (*_SCRIPTS, *scripts))
    return environment.get_template(template).render(
        data=data,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(source(environment, "report.css")[0]),
        script=Markup(script),
        **values,
    )


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as the content of a script element."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script"))


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """What the script draws beside videos, as plain values; null where nothing qualifies."""
    return {
        "runs": [_run_data(run) for run in runs],
        "scores": common_scores(runs),
        # In the order of the run that has most of them.
        "stages": {stage: _STAGE_TITLES.get(stage, stage) for stage in max((run.timing for run in runs), key=len)},
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
