"""Train the networks of `Newcomers`: `python -m experiments.footage.train_newcomers DAVIS --cache tokens`.

On the videos of the training split. A cell is new if half of it is of objects that show no pixel in the first clip. A
region is whole if half of its core's pixels and half of an object's, from the region's first frame on, are the same, or
six tenths for half of the networks. Cells need few examples: 18 of the videos. The DAVIS videos count four times.

`zsvss/stages/newcomers.npz` was written from the same evidence, collected by this code in several sittings; this
command was not run from start to end.

Shape legend: T frames of a clip, h w cells, R regions, E values of evidence, O objects, S networks of H hidden units, B
regions of a batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments.footage.late_videos import CLIP_LENGTH, LateVideo, videos
from experiments.footage.newcomers import GRID, Case, cases
from zsvss.stages.motion import CELL, motion_of
from zsvss.stages.newcomers import Newcomers, NewcomersState, cell_evidence, core, distances, small
from zsvss.stages.region_evidence import evidence_for

_FOR_CELLS = (*range(0, 50, 5), *range(474, 510, 5))  # numbers of videos
_LEAST_SHARES = (0.5, 0.6) * 9  # of pixels, one a network
_HIDDEN, _EPOCHS, _BATCH, _RATE, _DECAY = 96, 20, 512, 0.003, 0.01
_OF_DAVIS, _DAVIS_COUNTS = ("davis", "own"), 4  # kinds, and how many times as much they count as a generated scene

Floats = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with frames/<sequence>/*.jpg and masks/<sequence>/*.png")
    parser.add_argument("--cache", type=Path, required=True, help="folder to keep the tokens in, 3 GB")
    parser.add_argument("--output", type=Path, default=Path("zsvss/stages/newcomers.npz"))
    arguments = parser.parse_args()
    newcomers = Newcomers()
    for_cells = [pair for number, pair in enumerate(pairs(arguments.root, arguments.cache)) if number in _FOR_CELLS]
    newcomers.weights |= cell_weights(newcomers, for_cells)
    rows = [
        of_region
        for video, case in pairs(arguments.root, arguments.cache)
        for of_region in list(judged(newcomers, video, case)) * (_DAVIS_COUNTS if video.kind in _OF_DAVIS else 1)
    ]
    evidence, shares = zip(*rows, strict=True)
    newcomers.weights |= region_weights(np.stack(evidence), np.array(shares))
    np.savez(arguments.output, **newcomers.weights)


def pairs(root: Path, cache: Path) -> Iterator[tuple[LateVideo, Case]]:
    """Videos of the training split and their tokens, one at a time: all of them do not fit into memory."""
    return zip(videos(root, "train"), cases(root, "train", cache), strict=True)


def begun(newcomers: Newcomers, case: Case) -> NewcomersState:
    """After the first clip."""
    first = slice(CLIP_LENGTH)
    return newcomers.begin(case.features_Tnc[first], case.images_T3HW[first], GRID, 0)


def cell_weights(newcomers: Newcomers, examples: list[tuple[LateVideo, Case]]) -> dict[str, Floats]:
    """Of the linear score of a cell, by logistic regression."""
    evidence, truth = [], []
    for video, case in examples:
        state = begun(newcomers, case)
        frames = small(case.images_T3HW[CLIP_LENGTH : 2 * CLIP_LENGTH])
        assert state.frame_HW3 is not None
        motion = motion_of([state.frame_HW3, *frames], state.age_HW)
        distance_Tn = distances(case.features_Tnc[CLIP_LENGTH : 2 * CLIP_LENGTH], state)
        cells_Thwe = cell_evidence(distance_Tn, motion, GRID)
        is_late_Thw = late_pixels(video)[: len(cells_Thwe), ..., 1:].sum(-1) >= CELL * CELL / 2
        evidence.append(cells_Thwe[1::5].reshape(-1, cells_Thwe.shape[-1]))
        truth.append(is_late_Thw[1::5].ravel())
    scaler = StandardScaler().fit(np.concatenate(evidence))
    model = LogisticRegression(max_iter=400).fit(scaler.transform(np.concatenate(evidence)), np.concatenate(truth))
    weights = model.coef_[0] / scaler.scale_
    bias = model.intercept_[0] - float(weights @ scaler.mean_)
    return {"cell_weights": weights.astype(np.float32), "cell_bias": np.float32(bias)}


def late_pixels(video: LateVideo) -> npt.NDArray[np.int64]:
    """How many pixels of each late object a cell of the later frames has [T, h, w, O]; first of all else."""
    later_THW = video.objects_THW[CLIP_LENGTH:]
    late = np.setdiff1d(np.unique(later_THW), [0, *np.unique(video.objects_THW[:CLIP_LENGTH])])
    num_frames, height, width = later_THW.shape
    cells = later_THW.reshape(num_frames, height // CELL, CELL, width // CELL, CELL)
    counts = [(cells == number).sum((2, 4)) for number in late]
    return np.stack([CELL * CELL - sum(counts, np.zeros_like(cells[:, :, 0, :, 0], np.int64)), *counts], -1)


def judged(newcomers: Newcomers, video: LateVideo, case: Case) -> Iterator[tuple[Floats, float]]:
    """Evidence for each region of a video, and the lesser of its core's shares that tell if it is a whole object."""
    state, pixels_ThwO = begun(newcomers, case), late_pixels(video)
    for start in range(CLIP_LENGTH, len(case.features_Tnc), CLIP_LENGTH):
        clip = slice(start, start + CLIP_LENGTH)
        features_Tnc, images_T3HW = case.features_Tnc[clip], case.images_T3HW[clip]
        truth_ThwO = pixels_ThwO[start - CLIP_LENGTH :][: len(features_Tnc)]
        frames = small(images_T3HW)
        assert state.frame_HW3 is not None
        motion = motion_of([state.frame_HW3, *frames], state.age_HW)
        views, flow_Thw2 = newcomers.views(features_Tnc, distances(features_Tnc, state), frames, motion, state)
        for region in newcomers.candidates(views, flow_Thw2):
            inside_O = truth_ThwO[tuple(core(region, views.score_Thw).places)].sum(0)
            later_O = truth_ThwO[region.places[0].min() :].sum((0, 1, 2))
            best = int(inside_O[1:].argmax()) + 1 if len(inside_O) > 1 else 0
            share = min(inside_O[best] / inside_O.sum(), inside_O[best] / max(later_O[best], 1)) if best else 0.0
            yield evidence_for(region, views, is_first=not state.age_HW.any()), float(share)
        state = newcomers.carried(features_Tnc, frames, views, motion.age_THW, state)


def region_weights(evidence_RE: Floats, share_R: npt.NDArray[np.float64]) -> dict[str, Floats]:
    """Of the networks that tell whole objects."""
    scaler = StandardScaler().fit(evidence_RE)
    scaled_RE = torch.from_numpy(scaler.transform(evidence_RE).astype(np.float32))
    is_whole_SR = torch.from_numpy(np.stack([share_R >= least for least in _LEAST_SHARES])).float()
    hidden_SEH, hidden_bias_S1H, out_SH1, out_bias_S11 = fitted(scaled_RE, is_whole_SR)
    arrays = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "hidden_weights": hidden_SEH.numpy(),
        "hidden_bias": hidden_bias_S1H[:, 0].numpy(),
        "weights": out_SH1[..., 0].numpy(),
        "bias": out_bias_S11[:, 0, 0].numpy(),
    }
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def fitted(scaled_RE: Tensor, is_whole_SR: Tensor) -> list[Tensor]:
    """Weights and biases of the hidden and of the output layer of each network, all trained at once."""
    num_networks, (num_regions, num_values) = len(is_whole_SR), scaled_RE.shape
    generator = torch.Generator().manual_seed(0)
    sizes = ((num_values, _HIDDEN), (_HIDDEN, 1))
    weights = [
        (6 / sum(size)) ** 0.5 * (2 * torch.rand(num_networks, *size, generator=generator) - 1) for size in sizes
    ]
    biases = [torch.zeros(num_networks, 1, size[1]) for size in sizes]
    for values in (*weights, *biases):
        values.requires_grad_()
    groups = [{"params": weights, "weight_decay": _DECAY}, {"params": biases, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=_RATE)
    batches_an_epoch = -(-num_regions // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _EPOCHS * batches_an_epoch, pct_start=0.1)
    for _ in range(_EPOCHS):
        order_SR = torch.stack([torch.randperm(num_regions, generator=generator) for _ in range(num_networks)])
        for batch_SB in order_SR.split(_BATCH, 1):
            hidden_SBH = (scaled_RE[batch_SB] @ weights[0] + biases[0]).relu()
            odds_SB = (hidden_SBH @ weights[1] + biases[1])[..., 0]
            loss = binary_cross_entropy_with_logits(odds_SB, is_whole_SR.gather(1, batch_SB)) * num_networks
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return [values.detach() for values in (weights[0], biases[0], weights[1], biases[1])]


if __name__ == "__main__":
    main()
