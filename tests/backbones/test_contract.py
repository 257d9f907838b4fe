"""What every backbone promises the stages, on tiny random networks.

float32 sums in another order differ by about 1e-6 of their size; latents here are of size 1 to 10, and 1e-4 is allowed.
"""

import copy
import functools
import importlib
import inspect
import pkgutil

import pytest
import torch
from torch.nn import functional

import zsvss.backbones
from zsvss.backbones.auto import Auto
from zsvss.backbones.base import Backbone, FeatureKey
from zsvss.backbones.feature_places import FeaturePlace
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.video_transformer import VideoTransformer
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement

for module in pkgutil.walk_packages(zsvss.backbones.__path__, "zsvss.backbones."):
    importlib.import_module(module.name)


def concrete_subclasses(kind):
    found = [] if inspect.isabstract(kind) or not kind.__module__.startswith("zsvss") else [kind]
    return found + [below for subclass in kind.__subclasses__() for below in concrete_subclasses(subclass)]


KINDS = [kind for kind in dict.fromkeys(concrete_subclasses(Backbone)) if kind is not Auto]  # which makes the others
SIZE = (64, 128)  # not square, so that height and width are not mixed up unseen


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="session")
def loaded():
    """Load a backbone of a kind with some settings, once: loading takes longer than most of these tests."""
    return functools.cache(lambda kind, **settings: kind.from_pretrained(**settings))


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def make(request, settings_of, loaded):
    """Load the backbone under test with some settings; it is shared, and a test that changes it takes a copy."""
    own = next(settings_of[kind] for kind in request.param.__mro__ if kind in settings_of)
    if issubclass(request.param, StableDiffusion):
        own = {**own, "guidance": 5.0}  # both halves, whatever a kind's default
    if issubclass(request.param, VideoTransformer):
        own = {**own, "guidance": 4.0}

    def make(**settings):
        return loaded(request.param, **{**own, **settings})

    return make


@pytest.fixture
def backbone(make):
    return make()


class Pass:
    """A clip of random images and its feature pass."""

    def __init__(self, backbone, keys=(), num_frames=3):
        generator = torch.Generator().manual_seed(0)
        self.images_T3HW = torch.rand(num_frames, 3, *SIZE, generator=generator) * 2 - 1
        self.noise = backbone.sample_noise(num_frames, *SIZE, generator)
        self.conditioning = backbone.condition(self.images_T3HW, self.noise)
        self.latents_Tchw = backbone.encode(self.images_T3HW, self.noise)
        self.noised_Tchw = backbone.add_noise(self.latents_Tchw, self.noise)
        self.recording = backbone.record(self.noised_Tchw, self.conditioning, keys)
        self.frames_B = torch.arange(num_frames).repeat(2)

    def modulated(self, backbone, offset=50.0, **options):
        """Latents after every step of a pass in which the left half of frame 0 is modulated, in both signs."""
        height, width = self.recording.grids[backbone.modulation_block]
        offset_Bhw = torch.zeros(len(self.frames_B), height, width)
        offset_Bhw[0, :, : width // 2] = offset
        offset_Bhw[len(self.frames_B) // 2, :, : width // 2] = -offset
        x = self.noised_Tchw[self.frames_B]
        steps = []
        for step in backbone.steps:
            at_first = offset_Bhw.flatten(1) if step == backbone.steps[0] else None
            x = backbone.denoise(x, step, self.recording, self.frames_B, at_first, **options)
            steps.append(x)
        return torch.stack(steps)


def every_key(backbone):
    """All places of the modulated block, and the first and last block's output, at the first and last step."""
    blocks = range(len(backbone.places.blocks))
    places = [place for place in backbone.places.by_name.values() if place.block == backbone.modulation_block]
    outputs = [FeaturePlace(block, "block", "output") for block in (blocks[0], blocks[-1])]
    return [FeatureKey(backbone.steps[step], *place) for place in [*places, *outputs] for step in (0, -1)]


def test_there_are_backbones_to_test():
    u_nets = {"StableDiffusion", "StableDiffusionXL", "StableVideoDiffusion", "Embedded"}
    transformers = {"StableDiffusion3", "PixArt", "Flux", "CogVideoX", "Wan"}
    assert u_nets | transformers <= {kind.__name__ for kind in KINDS}


@torch.inference_mode()
def test_shapes(backbone):
    keys = every_key(backbone)
    clip = Pass(backbone, keys)
    stride = backbone.latent_stride
    assert clip.latents_Tchw.shape == (3, backbone.latent_channels, SIZE[0] // stride, SIZE[1] // stride)
    assert clip.latents_Tchw.dtype == torch.float32
    assert clip.conditioning.context_Gmc.shape[0] == 2
    assert set(keys) <= set(clip.recording.tensors)
    joins_frames = isinstance(backbone, VideoTransformer)
    for key in keys:
        tensor, (height, width) = clip.recording.tensors[key], clip.recording.grids[key.block]
        is_text = key.layer == "text" or (key.layer == "cross" and key.projection in ("key", "value"))
        num_times = (1 if is_text else backbone.num_latent_frames(3)) if joins_frames else 3
        assert tensor.shape[:2] == (1 + backbone.is_guided, num_times)
        if not is_text:
            assert tensor.shape[2] == height * width
            assert backbone.over_time(tensor[-1], 3).shape[:2] == (3, height * width)
    images = backbone.decode(clip.latents_Tchw)
    assert images.shape == clip.images_T3HW.shape
    assert images.dtype == torch.float32


@torch.inference_mode()
def test_own_attention_reproduces_the_recording(backbone):
    clip = Pass(backbone)
    x = clip.noised_Tchw[clip.frames_B]
    for step in backbone.steps:
        x = backbone.denoise(x, step, clip.recording, clip.frames_B)
        close(x, clip.recording.latents[step][clip.frames_B])


@pytest.fixture
def attended(monkeypatch):
    """Queries and keys of the last attention of each layer of a network, by its path; watches one network at a time."""
    attend, seen, running = functional.scaled_dot_product_attention, {}, []

    def watch(query, key, *args, **options):
        if running:  # otherwise it is the autoencoder's
            seen[running[-1]] = (query, key)
        return attend(query, key, *args, **options)

    def watched(network):
        for path in (name.removesuffix(".processor") for name in network.attn_processors):
            module = network.get_submodule(path)
            module.register_forward_pre_hook(lambda *_, path=path: running.append(path))
            module.register_forward_hook(lambda *_: running.clear())
        monkeypatch.setattr(functional, "scaled_dot_product_attention", watch)
        return seen

    return watched


@torch.inference_mode()
def test_every_layer_attends_as_recorded_whatever_the_latents(make, attended):
    """Latents of other noise: only what is injected makes a layer attend as in the recording."""
    backbone = copy.deepcopy(make(reuse_recorded=False, max_batch=64))
    seen, step, frames_B = attended(backbone.network), backbone.steps[-1], torch.arange(3)
    clip = Pass(backbone)
    recorded = dict(seen)
    others = backbone.add_noise(clip.latents_Tchw.flip(3), clip.noise)
    seen.clear()
    injected = backbone.denoise(others, step, clip.recording, frames_B)
    found = dict(seen)
    own = backbone.denoise(others, step, clip.recording, frames_B, inject=False)
    paths = injected_paths(backbone)
    assert paths
    assert paths <= found.keys()
    for path in paths:
        for ours, theirs in zip(found[path], recorded[path], strict=True):
            close(ours, theirs)
        assert (seen[path][0] - recorded[path][0]).abs().max() > 1e-3, "without injection it attends otherwise"
    assert (injected - own).abs().max() > 1e-4  # of one step to the end; rounding moves 1e-6


def injected_paths(backbone):
    """Paths of the attention layers that injection has to reach, by the network itself."""
    paths = {name.removesuffix(".processor") for name in backbone.network.attn_processors}
    if not hasattr(backbone, "unet"):
        return paths
    paths = {path for path in paths if path.startswith("up_blocks.")}
    if backbone.couples_frames:
        paths = {path for path in paths if "temporal" in path and path.endswith("attn1")}
    return paths


@torch.inference_mode()
def test_no_offset_is_the_recording(backbone):
    clip = Pass(backbone)
    close(clip.modulated(backbone, offset=0.0)[-1], clip.recording.latents[backbone.steps[-1]][clip.frames_B])


@pytest.mark.parametrize("inject", [True, False])
@torch.inference_mode()
def test_reusing_the_recording_changes_nothing(make, inject):
    steps = []
    for reuse in (True, False):
        backbone = make() if reuse else make(reuse_recorded=False)
        steps.append(Pass(backbone).modulated(backbone, inject=inject))
    close(*steps)
    assert (steps[0][-1, 0] - steps[0][-1, 3]).abs().max() > 1e-2  # the signs differ, so the comparison says something


@torch.inference_mode()
def test_passes_of_any_size_give_the_same(make):
    whole, single = make(max_batch=64), make(max_batch=1)
    clips = Pass(whole, every_key(whole)), Pass(single, every_key(single))
    close(clips[0].latents_Tchw, clips[1].latents_Tchw)
    for key, tensor in clips[0].recording.tensors.items():
        close(tensor, clips[1].recording.tensors[key])
    close(clips[0].modulated(whole), clips[1].modulated(single))
    close(whole.decode(clips[0].latents_Tchw), single.decode(clips[1].latents_Tchw))


@torch.inference_mode()
def test_modulation_of_a_frame_stays_in_the_frame_unless_frames_are_coupled(backbone):
    clip = Pass(backbone)
    moved = (clip.modulated(backbone)[-1] - clip.recording.latents[backbone.steps[-1]][clip.frames_B]).abs()
    floor = 1e-3  # a hundred times what rounding moves
    assert moved[0].max() > floor
    assert (moved[1:3].max() > floor) == backbone.couples_frames


@torch.inference_mode()
def test_a_clip_of_one_frame_at_the_smallest_size(backbone):
    generator = torch.Generator().manual_seed(0)
    side = backbone.size_multiple
    images = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
    noise = backbone.sample_noise(1, side, side, generator)
    noised = backbone.add_noise(backbone.encode(images, noise), noise)
    recording = backbone.record(noised, backbone.condition(images, noise), [])
    height, width = recording.grids[backbone.modulation_block]
    offset = torch.full((1, height * width), 50.0)
    x = backbone.denoise(noised, backbone.steps[0], recording, torch.zeros(1, dtype=torch.int64), offset)
    assert backbone.decode(x).isfinite().all()


@torch.inference_mode()
def test_inputs_stay_as_they_are(backbone):
    clip = Pass(backbone)
    before = copy.deepcopy((clip.images_T3HW, clip.noise, clip.conditioning, clip.noised_Tchw, clip.recording))
    clip.modulated(backbone)
    backbone.record(clip.noised_Tchw, clip.conditioning, [])
    backbone.decode(clip.recording.latents[backbone.steps[-1]])
    backbone.encode(clip.images_T3HW, clip.noise)
    images, noise, conditioning, noised, recording = before
    assert torch.equal(images, clip.images_T3HW)
    assert torch.equal(noised, clip.noised_Tchw)
    for now, then in ((clip.noise, noise), (clip.conditioning, conditioning)):
        assert all(torch.equal(a, b) for a, b in zip(now, then, strict=True) if a is not None)
    assert all(torch.equal(tensor, recording.tensors[key]) for key, tensor in clip.recording.tensors.items())
    assert all(torch.equal(x, recording.latents[step]) for step, x in clip.recording.latents.items())
    assert torch.equal(clip.recording.resume.hidden, recording.resume.hidden)


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("reuse", [True, False])
@torch.inference_mode()
def test_an_exception_leaves_the_network_as_it_was(make, reuse):
    backbone = make() if reuse else make(reuse_recorded=False)
    clip = Pass(backbone)
    network = backbone.network
    processors = dict(network.attn_processors)
    last = network.conv_out if hasattr(network, "conv_out") else network.proj_out
    expected = clip.modulated(backbone)

    def interrupt(*_):
        raise InterruptionError

    for action in (
        lambda: backbone.record(clip.noised_Tchw, clip.conditioning, every_key(backbone)),
        lambda: clip.modulated(backbone),
        lambda: backbone.denoise(clip.noised_Tchw, backbone.steps[-1], clip.recording, torch.arange(3)),
    ):
        handle = last.register_forward_hook(interrupt)
        with pytest.raises(InterruptionError):
            action()
        handle.remove()
        after = network.attn_processors
        assert after.keys() == processors.keys()
        assert all(after[name] is processor for name, processor in processors.items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        assert not any("forward" in vars(module) for module in network.modules())
    assert torch.equal(clip.modulated(backbone), expected)
    again = backbone.record(clip.noised_Tchw, clip.conditioning, [])
    assert all(torch.equal(x, clip.recording.latents[step]) for step, x in again.latents.items())


@torch.inference_mode()
def test_half_precision_keeps_sampling_in_float32(backbone):
    backbone = copy.deepcopy(backbone).to(torch.bfloat16)
    clip = Pass(backbone)
    steps = clip.modulated(backbone)
    assert steps.dtype == torch.float32
    assert steps.isfinite().all()
    assert backbone.decode(steps[-1]).dtype == torch.float32


@torch.inference_mode()
def test_the_default_dtype_changes_nothing(backbone):
    """Lightning's true half precision makes new tensors half precision unless their dtype is said."""
    clip = Pass(backbone)
    noise = backbone.sample_noise(3, *SIZE, torch.Generator().manual_seed(1))
    torch.set_default_dtype(torch.bfloat16)
    try:
        for ours, theirs in zip(backbone.sample_noise(3, *SIZE, torch.Generator().manual_seed(1)), noise, strict=True):
            assert ours is theirs or torch.equal(ours, theirs)
        conditioning = backbone.condition(clip.images_T3HW, clip.noise)
        recording = backbone.record(clip.noised_Tchw, conditioning, [])
        assert torch.equal(recording.noised_Tchw, clip.recording.noised_Tchw)
        assert all(torch.equal(x, clip.recording.latents[step]) for step, x in recording.latents.items())
    finally:
        torch.set_default_dtype(torch.float32)


def test_noise_depends_on_its_generator_alone(backbone):
    first, again, other = (
        backbone.sample_noise(2, *SIZE, torch.Generator().manual_seed(seed)).diffusion_Tchw for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_blended_steps_are_run(backbone):
    assert set(backbone.blended_steps) <= set(backbone.steps)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (FeatureKey(-23, 3), "step that is not run"),
        (FeatureKey(-1, 99, "block", "output"), "no .99, 'block', 'output', 0. to record. There are: "),
        (FeatureKey(-1, 3, "block", "query"), "no .3, 'block', 'query', 0. to record. There are: "),
        (FeatureKey(-1, 3, "self", "query", 9), "no .3, 'self', 'query', 9. to record. There are: "),
    ],
)
def test_keys_that_cannot_be_recorded(backbone, key, problem):
    key = key._replace(step=backbone.steps[-1] + 1 + key.step)
    with pytest.raises(ValueError, match=problem):
        backbone.record(torch.zeros(1, 4, 8, 8), None, [key])


def test_fingerprint_follows_the_weights(backbone, make):
    assert backbone.fingerprint() == make(max_batch=8).fingerprint()
    assert len(backbone.fingerprint()) == 64


def test_loading_twice_reads_once(backbone):
    network = backbone.network
    backbone.load()
    assert backbone.network is network


@torch.inference_mode()
def test_rows_are_any_frames_or_whole_clips_where_frames_are_coupled(backbone):
    clip, step, frames_B = Pass(backbone), backbone.steps[0], torch.tensor([2, 0])
    if backbone.couples_frames:
        with pytest.raises(ValueError, match="whole clips of 3 frames"):
            backbone.denoise(clip.noised_Tchw[frames_B], step, clip.recording, frames_B)
    else:
        x = backbone.denoise(clip.noised_Tchw[frames_B], step, clip.recording, frames_B)
        close(x, clip.recording.latents[step][frames_B])


def test_the_whole_method_runs_on_it(make):
    """A full clip and a shorter one of the same video, at a size that the network does not take as it is."""
    backbone = make(max_batch=8)
    segmenter = VideoSegmenter(
        backbone, KNNSceneContext(num_clusters=2, num_restarts=1), CorrespondenceRefinement(), MaskedModulation()
    )
    frames = torch.randint(0, 256, (3, 70, 131, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = [segmenter(part).labels_THW for part in (frames[:2], frames[2:])]
    assert [tuple(part.shape) for part in labels] == [(2, 70, 131), (1, 70, 131)]
    assert set(torch.cat(labels).unique().tolist()) <= {0, 1}
