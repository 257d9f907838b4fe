"""Labels across cuts: true ones, wrong ones, and views that come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_backbone import ToyBackbone, striped_video

from zsvss.data.shots import ShotDetector
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext, Memory, SceneContext
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.initialization import WardInitialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.novelty import Novelty
from zsvss.stages.per_frame import PerFrameClustering
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.shots import ShotBank, ShotMatching, described, within_shot

SWAN = Path(__file__).parents[2] / "docs" / "swan"


def segmenter_of(context: SceneContext) -> VideoSegmenter:
    features = JointFeatures([LabFeatures(), PositionFeatures()], [1.0, 0.25])
    return VideoSegmenter(ToyBackbone(), context, None, None, features=features)


def ward() -> KNNSceneContext:
    return KNNSceneContext(20, initialization=WardInitialization(0.03), memory_frames=4)


def labels_of(segmenter: VideoSegmenter, clips: list[tuple[torch.Tensor, int | None]]) -> list[torch.Tensor]:
    segmenter.reset()
    return [
        segmenter(frames, generator=torch.Generator().manual_seed(number), shot=shot).labels_THW
        for number, (frames, shot) in enumerate(clips)
    ]


@pytest.fixture(scope="module")
def swan() -> torch.Tensor:
    frames = []
    for path in sorted(SWAN.glob("*.jpg")):
        with Image.open(path) as image:
            frames.append(np.asarray(image.convert("RGB").resize((448, 256))))
    return torch.from_numpy(np.stack(frames))


def other_scene(num_frames: int, seed: int = 3) -> torch.Tensor:
    cells = torch.randint(0, 256, (8, 14, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return cells.repeat_interleave(32, 0).repeat_interleave(32, 1).expand(num_frames, -1, -1, -1)


@pytest.mark.parametrize("cut", [1, 4, 7, 11])
@pytest.mark.parametrize("make", [ward, lambda: KNNSceneContext(8), lambda: PerFrameClustering(8)])
def test_a_wrong_cut_keeps_the_labels(swan: torch.Tensor, make: type, cut: int) -> None:
    segmenter = segmenter_of(make())
    before, uncut = labels_of(segmenter, [(swan[:cut], None), (swan[cut:], None)])
    same, behind = labels_of(segmenter, [(swan[:cut], 0), (swan[cut:], 1)])
    assert torch.equal(same, before)
    assert (behind == uncut).float().mean() >= 0.95


def test_a_new_scene_gets_labels_of_its_own_and_the_first_one_comes_back(swan: torch.Tensor) -> None:
    clips = [(swan[:5], 0), (other_scene(5), 1), (swan[9:], 2)]
    first, second, third = labels_of(segmenter_of(ward()), clips)
    assert not set(first.unique().tolist()) & set(second.unique().tolist())
    assert set(third.unique().tolist()) <= set(first.unique().tolist())
    (uncut,) = labels_of(segmenter_of(ward()), [(swan[:5], 0), (swan[9:], 0)])[1:]
    assert (third == uncut).float().mean() >= 0.95


def test_without_shots_the_labels_of_the_first_scene_go_on(swan: torch.Tensor) -> None:
    first, second = labels_of(segmenter_of(ward()), [(swan[:5], None), (other_scene(5), None)])
    assert set(second.unique().tolist()) <= set(first.unique().tolist())


def test_colours_that_return_elsewhere_take_their_labels_again() -> None:
    """The second shot shows two of the first one's four bands, upside down: another view of the same things."""
    frames, bands = striped_video(6, 256, 384)
    turned = frames.flip(1)[:, :144]
    features = JointFeatures([LabFeatures()])
    segmenter = VideoSegmenter(ToyBackbone(), KNNSceneContext(4), None, None, features=features)
    first, second = labels_of(segmenter, [(frames, 0), (turned, 1)])
    label_of_band = [int(torch.bincount(first[bands == band]).argmax()) for band in range(4)]
    expected = torch.tensor(label_of_band)[bands.flip(1)[:, :144]]
    # Cells of 16 pixels straddle the bands' borders.
    assert (second == expected).float().mean() > 0.85


def test_given_labels_end_at_a_cut_and_come_back_with_their_view(swan: torch.Tensor) -> None:
    segmenter = segmenter_of(GivenLabels())
    given = torch.full((5, 256, 448), -1)
    given[0] = (torch.arange(448) > 200).long() + 4
    clips = [(swan[:5], 0, given), (other_scene(5), 1, None), (swan[5:], 2, None)]
    first, second, third = (segmenter(frames, shot=shot, given_THW=mask).labels_THW for frames, shot, mask in clips)
    assert set(first.unique().tolist()) == {4, 5}
    assert second.unique().tolist() == [-1]
    assert set(third.unique().tolist()) == {4, 5}


def test_labels_that_open_within_a_shot_are_no_other_shots() -> None:
    memory = Memory(torch.zeros(2, 1), torch.tensor([0, 3]), torch.tensor([0, 3]))
    opened = Memory(torch.zeros(3, 1), torch.tensor([0, 3, 4]), torch.tensor([0, 3, 4]))
    bank = ShotBank(first_free=9)
    labels, renamed = ShotMatching().set_apart(bank, torch.tensor([[0, 4, -1]]), opened, memory)
    assert labels.tolist() == [[0, 9, -1]]
    assert (renamed.labels_N.tolist(), renamed.label_set_L.tolist()) == ([0, 3, 9], [0, 3, 9])


def test_novelty_counts_on_over_shots(swan: torch.Tensor) -> None:
    context = KNNSceneContext(6, novelty=Novelty(margin=0.5, min_tokens=2))
    segmenter = segmenter_of(context)
    seen: list[set[int]] = []
    for number, (frames, shot) in enumerate([(swan[:4], 0), (other_scene(4), 1), (other_scene(4, 5), 1)]):
        labels = segmenter(frames, shot=shot, generator=torch.Generator().manual_seed(number)).labels_THW
        seen.append(set(labels.unique().tolist()))
    assert not seen[0] & (seen[1] | seen[2])
    assert seen[2] - seen[1], "something new is there"


def test_the_bank_does_not_grow() -> None:
    matching = ShotMatching(num_shots=3, num_labels=10)
    bank = ShotBank()
    generator = torch.Generator().manual_seed(0)
    for shot in range(20):
        features = torch.randn(2, 12, 5, generator=generator)
        labels = torch.arange(shot * 4, shot * 4 + 4).repeat(3).expand(2, 12)
        memory = Memory(features.flatten(0, 1), labels.flatten(), labels.unique())
        bank = matching.remember(PerFrameClustering(4), bank, shot, features, labels, memory)
    assert [shot.number for shot in bank.shots] == [17, 18, 19]
    assert bank.seen is not None
    assert bank.seen.labels_L.tolist() == list(range(70, 80))
    assert bank.first_free == 80


def test_the_bank_keeps_the_last_frame_of_each_shot_and_none_twice(swan: torch.Tensor) -> None:
    segmenter = segmenter_of(KNNSceneContext(6))
    scenes = [swan[:5], other_scene(5), swan[5:10], other_scene(5), other_scene(5, 7)]
    labels_of(segmenter, [(frames, number) for number, frames in enumerate(scenes)])
    assert [shot.number for shot in segmenter.bank.shots] == [2, 3, 4], "shots that go on take the place of their own"
    num_tokens = 16 * 28
    *ended, latest = segmenter.bank.shots
    assert latest.memory is segmenter.memory
    for shot in ended:
        assert len(shot.memory.points_Nc) == len(shot.memory.labels_N) == num_tokens
        assert torch.equal(shot.memory.points_Nc, shot.tokens_nc)
        assert shot.tokens_nc.untyped_storage().nbytes() == shot.tokens_nc.numel() * 4, "no view of the clip"


def test_a_memory_of_some_frames_holds_no_others(swan: torch.Tensor) -> None:
    segmenter = segmenter_of(ward())
    labels_of(segmenter, [(swan[:6], None)])
    points = segmenter.memory.points_Nc
    assert len(points) == 4 * 16 * 28
    assert points.untyped_storage().nbytes() == points.numel() * 4


def test_masks_are_kept_after_a_false_cut_where_another_mask_is_given(swan: torch.Tensor) -> None:
    given = torch.full((5, 256, 448), -1)
    given[0] = (torch.arange(448) > 200).long() + 4
    later = torch.full((5, 256, 448), -1)
    later[0, :40, :40] = 9
    behind = {}
    for shot in (0, 1):
        segmenter = segmenter_of(GivenLabels())
        segmenter(swan[:5], shot=0, given_THW=given)
        behind[shot] = segmenter(swan[5:10], shot=shot, given_THW=later).labels_THW
    assert set(behind[0].unique().tolist()) == {4, 5, 9}
    assert torch.equal(behind[0], behind[1])


def test_goes_on_from_a_state_on_disk_after_a_cut(swan: torch.Tensor, tmp_path: Path) -> None:
    """With novelty and with a shot that comes back: the same bits as without a stop."""
    clips = [(swan[:4], 0), (other_scene(4), 1), (other_scene(4, 5), 1), (swan[8:12], 2)]

    def make() -> VideoSegmenter:
        return segmenter_of(KNNSceneContext(6, novelty=Novelty(margin=0.5, min_tokens=2)))

    uninterrupted = labels_of(make(), clips)
    first, second = make(), make()
    labels_of(first, clips[:2])
    torch.save(first.state(), tmp_path / "state.pt")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=False))
    for number, (frames, shot) in list(enumerate(clips))[2:]:
        labels = second(frames, generator=torch.Generator().manual_seed(number), shot=shot).labels_THW
        assert torch.equal(labels, uninterrupted[number])
    assert set(uninterrupted[2].unique().tolist()) - set(uninterrupted[1].unique().tolist()), "novelty found something"


def test_a_stream_that_begins_black_is_labelled_as_if_it_began_with_its_first_picture(swan: torch.Tensor) -> None:
    segmenter = segmenter_of(ward())
    black = torch.zeros_like(swan[:7])
    both = torch.stack(list(segmenter.stream([*black, *swan], clip_length=5, shots=ShotDetector().start())))
    alone = torch.stack(list(segmenter.stream(swan, clip_length=5, shots=ShotDetector().start())))
    names = {int(label): int(both[7:][alone == label][0]) for label in alone.unique()}
    assert len(set(names.values())) == len(names) > 3
    renamed = torch.tensor([names.get(label, -1) for label in range(int(alone.max()) + 1)])
    assert torch.equal(renamed[alone], both[7:])


def test_a_stream_may_fill_one_array_again_and_again(swan: torch.Tensor) -> None:
    def reused() -> Iterator[np.ndarray]:
        array = np.empty((256, 448, 3), np.uint8)
        for frame in swan[:6]:
            array[:] = frame.numpy()
            yield array

    segmenter = segmenter_of(ward())
    separate = torch.stack(list(segmenter.stream(swan[:6], clip_length=3)))
    assert torch.equal(torch.stack(list(segmenter.stream(reused(), clip_length=3))), separate)


def test_descriptions_are_means_and_spreads() -> None:
    features = torch.tensor([[[0.0], [2.0], [9.0]], [[1.0], [3.0], [5.0]]])
    labels = torch.tensor([[7, 7, -1], [7, 7, 2]])
    seen = described(features, labels)
    assert seen.labels_L.tolist() == [2, 7]
    assert seen.prototypes_Lc.flatten().tolist() == [5.0, 1.5]
    torch.testing.assert_close(seen.spread_L, torch.tensor([0.0, 1.25**0.5]))
    assert seen.drift_L.isnan().tolist() == [True, False]
    torch.testing.assert_close(seen.drift_L[1], torch.tensor(1 / 1.25**0.5))


def test_reach_is_measured_from_the_first_frame_to_the_last() -> None:
    features = torch.zeros(3, 4, 1)
    features[2] = 0.5
    assert within_shot(features) == 0.5
    assert within_shot(features[:1]) == 0.0


def test_refinement_and_one_frame_shots_go_together(swan: torch.Tensor) -> None:
    segmenter = VideoSegmenter(ToyBackbone(), KNNSceneContext(4), CorrespondenceRefinement(), None)
    labels = labels_of(segmenter, [(swan[number : number + 1], number) for number in range(3)])
    assert [label.shape[0] for label in labels] == [1, 1, 1]


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="same_view = 0"):
        ShotMatching(same_view=0)
    with pytest.raises(ValueError, match="num_shots = 0 must be at least 1"):
        ShotMatching(num_shots=0)
