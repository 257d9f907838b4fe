"""Objects that come into view after a video's first clip, found by novelty and motion together.

Shape legend: T frames of a clip, n tokens of a frame, N tokens remembered, c channels, h w cells of 4x4 pixels, g k
token grid, H W pixels of the small frames on which motion is measured, R regions, E values of evidence, S networks.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.special import expit
from torch import Tensor

from zsvss.stages.motion import CELL, Bools, Floats, Motion, UInt8, motion_of, of_cells
from zsvss.stages.neighbors import nearest_neighbors
from zsvss.stages.novelty import nearest_distances
from zsvss.stages.region_evidence import CellViews, evidence_for
from zsvss.stages.region_networks import read_networks
from zsvss.stages.region_trees import LEAST_CELLS, Region, regions

Ints = npt.NDArray[np.int64]

_NUM_PIXELS = 128 * 224  # of the small frames, about
_NUM_AXES = 8
_SHARED, _SAME = 0.3, 0.2  # cells of the smaller of two regions; tokens of a region that an earlier label has
_LEAST_SHARE = 0.02  # of a frame's tokens, the size of a late object that counts
_MOST_NEW = 0.5  # of a clip's cells; where more are new, all has changed, and nothing has come in
_HALO = 0.1  # share of a region's cells that is left out of its label
_ALIKE = 8  # power of the intersection over union with which a region's neighbours tell how sure it is
_OLD = 3  # clips after which nothing is new any more
# Least score of a cell, and weights of velocity, features and colour, of each tree.
_TREES = ((-2.0, 0.5, 0.5, 0.3), (-1.0, 0.0, 1.0, 0.0), (0.0, 0.5, 1.0, 0.0))


class NewcomersState(NamedTuple):
    """What is carried from clip to clip.

    Attributes:
        frame_HW3: the frame before the next clip, small; ``None`` where that is not known.
        age_HW: for how many clips each pixel of it has been pending, 0 where it is not.
        known_Nc: tokens of the last frames that are not pending.
        weight_c: of each channel: less where it varies from frame to frame.
        first_new: smallest label that can have been opened.
        grid: height and width of the token grid.
    """

    frame_HW3: UInt8 | None
    age_HW: UInt8
    known_Nc: Tensor
    weight_c: Tensor
    first_new: int
    grid: tuple[int, int]

    def of_ended_shot(self) -> NewcomersState:
        """Without what the shot, should it come back, cannot use any more."""
        return self._replace(frame_HW3=None, age_HW=self.age_HW[:0], known_Nc=self.known_Nc[:0].clone())


class Newcomers:
    """Opens a label for each region that is likely to be one whole object that has come in.

    Each cell of 4x4 pixels gets a score: how far it is from all that is known, how it moves against the background,
    whether its way back through the clip leads out of the frame, and how it differs from what was there. Cells of a
    high score fall into regions: the nodes of Ward trees over motion, features and colour. Small networks, trained on
    generated scenes and pasted objects, tell from a region's evidence whether it is one whole object. How sure they are
    is averaged over regions of nearly the same cells, as those are likely to show the same object. What is accepted
    gets a label, or keeps the one that it got in the clip before, wherever the clip shows it but for the tenth of its
    cells that are least likely new. Clips of one or two frames open none, nor do those in which no frame has many
    tokens that are far from all that is known; these take little time.

    Args:
        threshold: how sure the networks must be together, 0..1; more opens fewer labels.
        known_frames: frames at a clip's end whose tokens are known from then on, 1 or more.
        least_distance: from what is known, beyond which 2 % of some frame's tokens must lie before motion is measured
            in a clip. It is in units of the features, and chosen for those of `predict_embedded.yaml`: with others it
            may leave out too many clips, or none. 0 measures motion in every clip.
        weights: file of other networks, as `experiments/footage/train_newcomers.py` writes it; ``None`` takes those of
            the package.
    """

    def __init__(
        self,
        threshold: float = 0.25,
        known_frames: int = 4,
        least_distance: float = 0.42,
        weights: str | None = None,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"novelty.threshold = {threshold} must be between 0 and 1.")
        if known_frames < 1:
            raise ValueError(f"novelty.known_frames = {known_frames} must be at least 1.")
        if not least_distance >= 0:
            raise ValueError(f"novelty.least_distance = {least_distance} must be at least 0.")
        self.threshold = threshold
        self.known_frames = known_frames
        self.least_distance = least_distance
        self.weights = read_networks(weights)

    def begin(
        self,
        features_Tnc: Tensor,
        images_T3HW: Tensor,
        grid: tuple[int, int],
        first_new: int,
        num_wanted: int | None = None,
    ) -> NewcomersState:
        """Learn from the first clip of a video.

        Args:
            features_Tnc: of the tokens.
            images_T3HW: in [-1, 1], without padding.
            grid: height and width of the token grid.
            first_new: smallest label that may be opened.
            num_wanted: the first so many frames are not in the next clip; ``None`` is all.
        """
        before = slice(num_wanted or None)
        nothing = np.zeros((0, 0), np.uint8)
        state = NewcomersState(None, nothing, features_Tnc[0, :0], weights_of(features_Tnc), first_new, grid)
        is_known_Tn = torch.ones(features_Tnc[before].shape[:2], dtype=torch.bool, device=features_Tnc.device)
        state = self.nothing_pending(features_Tnc[before], images_T3HW[before], is_known_Tn, state)
        return state._replace(frame_HW3=None) if num_wanted == 0 else state

    def nothing_pending(
        self, features_Tnc: Tensor, images_T3HW: Tensor, is_known_Tn: Tensor, state: NewcomersState
    ) -> NewcomersState:
        """State for the next clip where motion was not measured: what is far, but too little, stays unknown."""
        frame_HW3 = small(images_T3HW[-1:])[0]
        state = state._replace(frame_HW3=frame_HW3, age_HW=np.zeros(frame_HW3.shape[:2], np.uint8))
        return self.knowing(features_Tnc, is_known_Tn, state)

    def knowing(self, features_Tnc: Tensor, is_known_Tn: Tensor, state: NewcomersState) -> NewcomersState:
        """State with the known tokens of the last frames, or those before where there is none."""
        last = slice(-self.known_frames, None)
        known_Nc = features_Tnc[last][is_known_Tn[last]]
        return state._replace(known_Nc=known_Nc) if len(known_Nc) else state

    def label(
        self,
        features_Tnc: Tensor,
        images_T3HW: Tensor,
        labels_Tn: Tensor,
        old_Tn: Tensor,
        free: int,
        state: NewcomersState,
        num_wanted: int | None = None,
    ) -> tuple[Tensor, NewcomersState]:
        """Label what has come in during a clip.

        Args:
            features_Tnc: of the clip.
            images_T3HW: in [-1, 1], without padding.
            labels_Tn: int64 labels by the memory.
            old_Tn: the same without labels that were opened.
            free: smallest label that was never given.
            state: of the clip before.
            num_wanted: the first so many frames are not in the next clip; ``None`` is all.

        Returns:
            int64 labels [T, n] and the state for the next clip.
        """
        if state.frame_HW3 is None:
            return labels_Tn, self.begin(features_Tnc, images_T3HW, state.grid, state.first_new, num_wanted)
        before = slice(num_wanted)
        distance_Tn = distances(features_Tnc, state)
        if not self.may_show_newcomers(distance_Tn):
            is_near_Tn = distance_Tn < self.least_distance
            known = (
                state
                if num_wanted == 0  # the next clip is this one again
                else self.nothing_pending(features_Tnc[before], images_T3HW[before], is_near_Tn[before], state)
            )
            return labels_Tn, known
        frames = small(images_T3HW)
        motion = motion_of([state.frame_HW3, *frames], state.age_HW)
        views, flow_Thw2 = self.views(features_Tnc, distance_Tn, frames, motion, state)
        accepted = self.accepted(views, flow_Thw2, is_first=not state.age_HW.any())
        labels_Tgk, old_Tgk = (labels.unflatten(1, state.grid).cpu().numpy() for labels in (labels_Tn, old_Tn))
        cores = [core(region, views.score_Thw) for region in accepted]
        tokens = [on_tokens(region, views.score_Thw.shape, state.grid) for region in cores]
        new_Tgk = with_regions(labels_Tgk, old_Tgk, tokens, free, state.first_new)
        if num_wanted != 0:
            views = views._replace(score_Thw=views.score_Thw[before])
            state = self.carried(features_Tnc[before], frames[before], views, motion.age_THW[before], state)
        return torch.from_numpy(new_Tgk).flatten(1).to(labels_Tn.device), state

    def may_show_newcomers(self, distance_Tn: Tensor) -> bool:
        """Whether some frame has as many tokens far from what is known as a late object that counts."""
        num_tokens = math.ceil(_LEAST_SHARE * distance_Tn.shape[1])
        return bool((distance_Tn.topk(num_tokens, 1).values[:, -1] >= self.least_distance).any())

    def carried(
        self, features_Tnc: Tensor, frames: list[UInt8], views: CellViews, age_THW: UInt8, state: NewcomersState
    ) -> NewcomersState:
        """State for the next clip: cells with a score stay pending for a few clips, what else there is gets known."""
        is_new_Thw = (views.score_Thw > 0) & (of_cells(age_THW) < _OLD)
        is_new_HW = np.kron(is_new_Thw[-1], np.ones((CELL, CELL), np.bool_))
        age_HW = np.where(is_new_HW, age_THW[-1] + 1, 0).astype(np.uint8)
        is_known_Tn = torch.from_numpy(resized(is_new_Thw.astype(np.float32), state.grid) < 0.5).flatten(1)
        state = state._replace(frame_HW3=frames[-1], age_HW=age_HW)
        return self.knowing(features_Tnc, is_known_Tn.to(features_Tnc.device), state)

    def views(
        self, features_Tnc: Tensor, distance_Tn: Tensor, frames: list[UInt8], motion: Motion, state: NewcomersState
    ) -> tuple[CellViews, Floats]:
        """What is known of each cell, and the flow of cells to the frame before."""
        evidence_Thwe = cell_evidence(distance_Tn, motion, state.grid)
        score_Thw = evidence_Thwe @ self.weights["cell_weights"] + self.weights["cell_bias"]
        velocity_Thw2 = np.stack([of_cells(motion.own_THW2[..., axis]) for axis in (0, 1)], -1)
        smoothed_Thw2 = ndimage.gaussian_filter(velocity_Thw2, (0.7, 0.7, 0.7, 0), mode="nearest")
        size = (score_Thw.shape[2], score_Thw.shape[1])
        lab = [cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2LAB) for frame_HW3 in frames]
        lab_Thw3 = np.stack([cv2.resize(of_frame, size, interpolation=cv2.INTER_AREA) for of_frame in lab]) / 25
        looks_Thwc = leading_axes(features_Tnc * state.weight_c, state.grid, (size[1], size[0]))
        speed = float(np.median(np.linalg.norm(motion.flow_THW2[:, ::CELL, ::CELL], axis=-1)))
        views = CellViews(score_Thw, evidence_Thwe, smoothed_Thw2, looks_Thwc, lab_Thw3.astype(np.float32), speed)
        return views, np.stack([of_cells(motion.flow_THW2[..., axis]) / CELL for axis in (0, 1)], -1)

    def candidates(self, views: CellViews, flow_Thw2: Floats) -> list[Region]:
        """All regions that may be objects."""
        found: list[Region] = []
        for least, of_velocity, of_features, of_color in _TREES:
            mask_Thw = views.score_Thw > least
            if np.count_nonzero(mask_Thw) >= LEAST_CELLS:
                looks = (
                    of_velocity / 2 * views.velocity_Thw2,
                    of_features * views.features_Thwc,
                    of_color * views.lab_Thw3,
                )
                found.extend(regions(mask_Thw, flow_Thw2, np.concatenate(looks, -1)))
        return found

    def accepted(self, views: CellViews, flow_Thw2: Floats, *, is_first: bool) -> list[Region]:
        """Regions that are objects, the surest first, none of which has much of another."""
        if (views.score_Thw > 0).mean() > _MOST_NEW:
            return []
        found = self.candidates(views, flow_Thw2)
        if not found:
            return []
        alone_R = self.sureness(np.stack([evidence_for(region, views, is_first=is_first) for region in found]))
        common_RR = common_cells(found, views.score_Thw.shape)
        sure_R = agreed(alone_R, common_RR)
        size_R = common_RR.diagonal()
        kept: list[int] = []
        for index in np.argsort(-sure_R, kind="stable"):
            if sure_R[index] < self.threshold:
                break
            common_R = common_RR[[index]].toarray()[0]
            if (common_R[kept] <= _SHARED * np.minimum(size_R[index], size_R[kept])).all():
                kept.append(int(index))
        return [found[index] for index in kept]

    def sureness(self, evidence_RE: Floats) -> Floats:
        """How sure the networks are, 0..1, that regions are whole objects that have come in."""
        weights = self.weights
        scaled_RE = (evidence_RE - weights["mean"]) / weights["scale"]
        hidden_SRH = np.maximum(scaled_RE @ weights["hidden_weights"] + weights["hidden_bias"][:, None], 0)
        odds_SR = np.einsum("srh,sh->sr", hidden_SRH, weights["weights"]) + weights["bias"][:, None]
        return np.asarray(expit(odds_SR).mean(0))


def common_cells(found: list[Region], shape: tuple[int, ...]) -> csr_array:
    """How many cells each two regions have in common, [R, R]."""
    cells = [np.ravel_multi_index(tuple(region.places), shape) for region in found]
    ends = np.cumsum([0, *map(len, cells)])
    inside = csr_array((np.ones(ends[-1], np.float32), np.concatenate(cells), ends), (len(found), int(np.prod(shape))))
    return csr_array(inside @ inside.T)


def agreed(sure_R: Floats, common_RR: csr_array) -> Floats:
    """How sure regions are together: the mean over all, weighted by a high power of the intersection over union."""
    common, size_R = common_RR.tocoo(), common_RR.diagonal()
    rows, columns = common.coords
    weights = (common.data / (size_R[rows] + size_R[columns] - common.data)) ** _ALIKE
    weight_RR = csr_array((weights, common.coords), common.shape)
    return np.asarray((weight_RR @ sure_R) / weight_RR.sum(1))


def distances(features_Tnc: Tensor, state: NewcomersState) -> Tensor:
    """Weighted distance [T, n] of each token to the nearest one that is known."""
    weighted_Mc = (features_Tnc * state.weight_c).flatten(0, 1)
    return nearest_distances(weighted_Mc, state.known_Nc * state.weight_c).view(features_Tnc.shape[:2])


def cell_evidence(distance_Tn: Tensor, motion: Motion, grid: tuple[int, int]) -> Floats:
    """What a cell's score is told from [T, h, w, 9]; the first is its novelty."""
    distance_Tgk = distance_Tn.unflatten(1, grid).cpu().numpy()
    distance_Tgk = distance_Tgk / max(float(np.quantile(distance_Tgk, 0.75)), 1e-6) ** 0.5
    distance_Tgk = ndimage.gaussian_filter(distance_Tgk, (1, 0, 0), mode="nearest")
    slower_THW = np.minimum(motion.backward_THW, motion.forward_THW)
    of_pixels = (
        smoothed_log(motion.backward_THW),
        smoothed_log(motion.forward_THW),
        smoothed_log(slower_THW),
        motion.entered_THW,
        motion.lost_THW,
        np.log1p(motion.changed_THW),
        motion.unseen_THW,
        smoothed_log(slower_THW, 4),
    )
    cells = [of_cells(values_THW) for values_THW in of_pixels]
    return np.stack([resized(distance_Tgk, cells[0].shape[1:]), *cells], -1)


def smoothed_log(speed_THW: Floats, width: float = 2) -> Floats:
    """Logarithm of a speed, smoothed over pixels and a frame."""
    side = 2 * round(4 * width) + 1
    blurred = [
        cv2.GaussianBlur(log_HW, (side, side), width, borderType=cv2.BORDER_REPLICATE)
        for log_HW in np.log(speed_THW + 0.1)
    ]
    return np.asarray(ndimage.gaussian_filter1d(np.stack(blurred), 1, axis=0, mode="nearest"))


def weights_of(features_Tnc: Tensor) -> Tensor:
    """Weight of each channel: less where the most alike tokens of neighbouring frames differ much."""
    if len(features_Tnc) == 1:
        return torch.ones_like(features_Tnc[0, 0])
    moved = [
        (now - before[nearest_neighbors(now, before, 1)[:, 0]]).square().mean(0)
        for before, now in itertools.pairwise(features_Tnc)
    ]
    noise_c = torch.stack(moved).mean(0)
    return (noise_c / noise_c.mean().clamp(min=1e-12) + 1).rsqrt()


def leading_axes(features_Tnc: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Leading principal axes of a clip's features, in units of their deviation, resized to cells [T, h, w, 8]."""
    flat_Nc = features_Tnc.flatten(0, 1).double()
    centred_Nc = flat_Nc - flat_Nc.mean(0)
    values_c, axes_cc = torch.linalg.eigh(centred_Nc.T @ centred_Nc / len(centred_Nc))
    axes_ck = axes_cc[:, -_NUM_AXES:] / values_c.sum().clamp(min=1e-12).sqrt()
    axes_kTgk = (centred_Nc @ axes_ck).float().T.unflatten(1, (-1, *grid)).cpu().numpy()
    return np.stack([resized(of_axis, size) for of_axis in axes_kTgk], -1)


def small(images_T3HW: Tensor) -> list[UInt8]:
    """Images in [-1, 1] as uint8 RGB frames of about 128x224 pixels in their shape, sides of whole cells."""
    height, width = images_T3HW.shape[-2:]
    scale = (_NUM_PIXELS / (height * width)) ** 0.5
    rows, columns = (max(8, round(side * scale / CELL)) * CELL for side in (height, width))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    frames = []
    for image_3HW in images_T3HW:
        channels = image_3HW.add(1).mul_(127.5).round_().clamp_(0, 255).byte().cpu().numpy()
        if (rows, columns) != (height, width):
            channels = [cv2.resize(channel_HW, (columns, rows), interpolation=way) for channel_HW in channels]
        frames.append(np.stack(channels, -1))
    return frames


def resized(values_Thw: Floats, size: tuple[int, ...]) -> Floats:
    """Maps at another height and width: bilinear where they grow, means where they shrink."""
    shrinks = size[0] < values_Thw.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(values_hw, (size[1], size[0]), interpolation=way) for values_hw in values_Thw])


def core(region: Region, score_Thw: Floats) -> Region:
    """A region without the tenth of its cells that have the least scores: most of them lie beside the object."""
    score_M = score_Thw[tuple(region.places)]
    return region._replace(places=region.places[:, score_M >= np.quantile(score_M, _HALO)])


def on_tokens(region: Region, shape: tuple[int, ...], grid: tuple[int, int]) -> Bools:
    """Tokens [T, g, k] of which a region has half or more."""
    inside_Thw = np.zeros(shape, np.float32)
    inside_Thw[tuple(region.places)] = 1
    return np.asarray(resized(inside_Thw, grid) >= 0.5)


def with_regions(labels_Tgk: Ints, old_Tgk: Ints, found: list[Bools], free: int, first_new: int) -> Ints:
    """Write regions into labels, the surest on top.

    A region takes the label that opened in an earlier clip and that the memory gives to a good part of it, where no
    surer region has; else a new one. Of an earlier label that a region has taken nothing stays outside the region.

    Args:
        labels_Tgk: by the memory.
        old_Tgk: the same without labels that were opened.
        found: regions, the surest first.
        free: smallest label that was never given.
        first_new: smallest label that can have been opened.
    """
    new_Tgk, taken = np.array(labels_Tgk), set()
    named: list[tuple[Bools, int]] = []
    for region_Tgk in found:
        if not region_Tgk.any():
            continue
        before = labels_Tgk[region_Tgk]
        opened = before[before >= first_new]
        label = int(np.bincount(opened).argmax()) if len(opened) else None
        if label is None or label in taken or (before == label).mean() < _SAME:
            label, free = free, free + 1
        else:
            taken.add(label)
            is_left_Tgk = (labels_Tgk == label) & ~region_Tgk
            new_Tgk[is_left_Tgk] = old_Tgk[is_left_Tgk]
        named.append((region_Tgk, label))
    for region_Tgk, label in reversed(named):
        new_Tgk[region_Tgk] = label
    return new_Tgk
