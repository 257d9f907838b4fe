"""The whole segmenter on the pretend accelerator, over every backbone with tiny weights.

What is on for a CPU alone (a shared attention map, merged upsampling) is off in what it is compared with. The layout
of a GPU's autoencoder, which has tests of its own, is the CPU's.
"""

import copy
import functools
import io
import pickle
from unittest.mock import patch

import pytest
import torch
from pretend_device import DEVICE, NAME, running
from stalls import compared, segment_on_cpu, segment_on_device
from toy_backbone import striped_video

from zsvss.backbones import latent_diffusion, offload
from zsvss.backbones.cogvideox import CogVideoX
from zsvss.backbones.embedded import Embedded
from zsvss.backbones.flux import Flux
from zsvss.backbones.pixart import PixArt
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
from zsvss.backbones.stable_diffusion_xl import StableDiffusionXL
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.unet import UNetBackbone
from zsvss.backbones.wan import Wan
from zsvss.bench.meters import agreement
from zsvss.bench.published import put_back_plain_layers
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement

KINDS = [
    StableDiffusion,
    StableDiffusionXL,
    StableDiffusion3,
    PixArt,
    Flux,
    CogVideoX,
    Wan,
    StableVideoDiffusion,
    Embedded,
]


class Copies:
    """Makes what `copy.deepcopy` makes of a module, in a fifth of the time.

    It is pickled once, but for its tensors and classes.
    """

    def __init__(self, module):
        self._kept, numbers, written = [], {}, io.BytesIO()

        def number_of(value):
            if not isinstance(value, torch.Tensor | type):
                return None
            if id(value) not in numbers:
                numbers[id(value)] = len(self._kept)
                self._kept.append(value)
            return numbers[id(value)]

        pickler = pickle.Pickler(written)
        pickler.persistent_id = number_of
        pickler.dump(module)
        self._written = written.getvalue()

    def __call__(self):
        unpickler = pickle.Unpickler(io.BytesIO(self._written))
        unpickler.persistent_load = copy.deepcopy(self._kept).__getitem__
        return unpickler.load()


@pytest.fixture(scope="module")
def loaded(settings_of):
    """Copies of a backbone of a kind, loaded once."""

    @functools.cache
    def load(kind, **settings):
        # Both halves of the one that ships.
        own = settings_of.get(kind, {"first_step": 23, "guidance": 5.0})
        backbone = kind(**{**own, **settings})
        backbone.load()
        for network in (backbone.network, backbone.vae):
            put_back_plain_layers(network)
        return Copies(backbone)

    return load


@pytest.fixture
def make(loaded, monkeypatch):
    """Make a segmenter on a backbone of a kind."""
    monkeypatch.setattr(UNetBackbone, "_shared_maps", lambda *_: None)
    monkeypatch.setattr(latent_diffusion, "image_format", lambda *_: torch.contiguous_format)

    def segmenter(kind, num_clusters=3, modulation=None, **settings):
        context = KNNSceneContext(num_clusters, num_restarts=2)
        stages = context, CorrespondenceRefinement(), modulation or MaskedModulation()
        return VideoSegmenter(loaded(kind, **settings)(), *stages, input_size="frames")

    return segmenter


def clips_of(*lengths):
    frames, _ = striped_video(num_frames=sum(lengths), height=64, width=64)
    return list(frames.split(list(lengths)))


def waits_of(kind):
    """Waits by stage of the first clip and of a later one.

    Seven a later clip: two copies of its noise, two for its frames' labels, three whether all is finite.
    """
    later = {"encode": 1, "record": 2, "knn": 0, "context": 0, "refinement": 1, "modulation": 3}
    if kind is StableDiffusionXL:
        later["record"] = 3  # the size of the frames, which the network is told
    if kind in (CogVideoX, Wan):
        later["modulation"] = 2  # every frame has every label
    if kind is StableVideoDiffusion:
        later["record"] = 4  # the noise of the first frame, and the numbers that the network is told
        later["modulation"] = 2  # every frame has every label
    # The device is told once where nearest cells lie, in one direction of a square.
    first = later | {"kmeans": 5, "context": 1, "modulation": later["modulation"] + 1}
    return (first | {"encode": 2} if kind is Wan else first), later  # the statistics of its latents


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_labels_are_the_cpus_and_waits_grow_with_nothing(kind, make):
    few = compared(lambda: make(kind), clips_of(2, 2, 3))
    first, later = waits_of(kind)
    assert few == [first, later, later]
    (many,) = compared(lambda: make(kind, num_clusters=6), clips_of(2))
    assert many == first


@pytest.mark.parametrize(
    ("kind", "dtype", "share"),
    [
        (StableDiffusion, torch.float16, 0.95),
        (StableDiffusion, torch.bfloat16, 0.8),
        (StableVideoDiffusion, torch.bfloat16, 0.6),
    ],
)
def test_half_precision_by_autocast_and_by_weights(kind, dtype, share, make):
    """Share of the pixels with float32's label, by two clusters and random weights: 0.99, 0.87 and 0.66 were found.

    On a CPU a pass of the video model in float16 takes minutes.
    """
    clips = clips_of(2)
    (expected_THW,) = segment_on_cpu(lambda: make(kind, num_clusters=2), clips)
    with running():
        for weights in (torch.float32, dtype)[kind is StableVideoDiffusion :]:
            with torch.autocast(NAME, dtype, enabled=weights == torch.float32):
                (labels_THW,) = segment_on_device(lambda w=weights: make(kind, num_clusters=2).to(w), clips).labels
            assert agreement(labels_THW, expected_THW) >= share


def test_deterministic_mode_is_obeyed(make):
    clips = clips_of(2, 2)
    expected = segment_on_cpu(lambda: make(StableDiffusion), clips)
    torch.use_deterministic_algorithms(True)
    try:
        with running():
            found = segment_on_device(lambda: make(StableDiffusion), clips).labels
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


STAGES = ("encode", "condition", "record", "denoise", "decode")


def allocations_of(segmenter, clip):
    """How many tensors a clip takes memory for until each stage begins."""
    counts = {}
    with running() as device:
        segmenter.to(DEVICE)
        moved = clip.to(DEVICE)
        device.allocations = 0
        for name in STAGES:
            plain = getattr(segmenter.backbone, name)

            def noted(*args, name=name, plain=plain, **options):
                counts.setdefault(name, device.allocations)
                return plain(*args, **options)

            object.__setattr__(segmenter.backbone, name, noted)
        segmenter(moved)
    return counts


@pytest.fixture(scope="module")
def undisturbed():
    """Labels of a clip, and where its stages begin, by kind."""
    return {}


# How far into a stage memory runs out: in the middle of its network.
@pytest.mark.parametrize(
    ("kind", "stage", "further"),
    [
        (StableDiffusion, "encode", 50),
        (StableDiffusion, "record", 200),
        (StableDiffusion, "denoise", 100),
        (StableDiffusion, "decode", 50),
        (StableVideoDiffusion, "condition", 50),
    ],
)
def test_a_shortage_anywhere_changes_no_label(kind, stage, further, make, undisturbed, caplog):
    clips = clips_of(2)
    if kind not in undisturbed:
        undisturbed[kind] = segment_on_cpu(lambda: make(kind), clips)[0], allocations_of(make(kind), clips[0])
    expected, begins = undisturbed[kind]
    with running() as device:
        segmenter = make(kind).to(DEVICE)
        moved = clips[0].to(DEVICE)
        device.allocations, device.fail_at = 0, {begins[stage] + further}
        found = segmenter(moved).labels_THW.cpu()
    assert torch.equal(found, expected)
    said = "for the clip's conditioning; trying again" if stage == "condition" else "with a batch of"
    assert f"out of memory {said}" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert device.num_shortages == 1


@pytest.mark.parametrize("kind", [StableDiffusion, StableVideoDiffusion], ids=lambda kind: kind.__name__)
def test_a_recording_that_does_not_fit_is_kept_by_the_host(kind, make, caplog):
    clips = clips_of(2, 2)
    expected = segment_on_cpu(lambda: make(kind), clips)
    with running():
        segmenter = make(kind).to(DEVICE)
        plain = segmenter.backbone._recorded_pass
        held = []

        def short_of_memory(*args):
            if not segmenter.backbone.keeps_on_host:
                held.append(None)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5 GB.")
            return plain(*args)

        with patch.object(segmenter.backbone, "_recorded_pass", short_of_memory):
            first, second = (
                segmenter(clip.to(DEVICE), generator=torch.Generator().manual_seed(i)) for i, clip in enumerate(clips)
            )
        assert "kept in the host's memory from now on" in caplog.text
        assert all(
            torch.equal(done.labels_THW.cpu(), wanted) for done, wanted in zip((first, second), expected, strict=True)
        )
        recording = segmenter.backbone.record(*recorded_arguments(segmenter, clips[0].to(DEVICE)))
        assert all(tensor.device.type == "cpu" and tensor.is_pinned() for tensor in recording.tensors.values())
        assert recording.latents[23].device == DEVICE


def recorded_arguments(segmenter, frames_THW3):
    images_T3HW = segmenter.to_images(frames_THW3)
    noise = segmenter.backbone.sample_noise(len(images_T3HW), 64, 64, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latents = segmenter.backbone.encode(images_T3HW, noise)
        return segmenter.backbone.add_noise(latents, noise), segmenter.backbone.condition(images_T3HW, noise), []


def lying_there(backbone):
    """Names of the networks of which any weight lies on the device."""
    networks = {name: getattr(backbone, name) for name in (backbone.network_part, "vae")}
    return {
        name
        for name, network in networks.items()
        if any(weight.device == DEVICE for weight in (*network.parameters(), *network.buffers()))
    }


def num_bytes(network):
    return sum(weight.nbytes for weight in (*network.parameters(), *network.buffers()))


@pytest.mark.parametrize("kind", [StableDiffusion3, CogVideoX, StableVideoDiffusion])
def test_networks_in_turns_give_the_same_bits_and_wait_for_nothing(kind, make, monkeypatch):
    """Each comes once a clip, however many frames and labels there are, and never beside another."""
    there, backbones = [], []
    put = offload._put

    def watched_put(network, tensors):
        put(network, tensors)
        there.append(lying_there(backbones[-1]))

    def made():
        segmenter = make(kind, offload=True)
        backbones.append(segmenter.backbone)
        return segmenter

    monkeypatch.setattr(offload, "_put", watched_put)
    assert compared(made, clips_of(2, 3)) == list(waits_of(kind))
    assert all(len(names) <= 1 for names in there)
    # A clip begins with the network that the last one ended with.
    part = backbones[-1].network_part
    assert [name for names in there for name in names] == ["vae", part, "vae", part, "vae"]


def test_only_the_network_whose_turn_it_is_takes_memory(make):
    backbone = make(StableDiffusion3, offload=True).backbone
    vae, network = num_bytes(backbone.vae), num_bytes(backbone.network)
    with running() as device:
        backbone.to(DEVICE)
        beside = device.held
        assert beside < min(vae, network)
        assert backbone.device == DEVICE
        for name, taken in [("vae", vae), ("transformer", network), ("vae", vae)]:
            waits = device.num_stalls
            backbone.turn_of(name)
            assert device.held == beside + taken
            assert lying_there(backbone) == {name}
            assert device.num_stalls == waits
        backbone.half()
        assert lying_there(backbone) == set()
        assert device.held <= beside
        backbone.turn_of("vae")
        assert device.held <= beside + vae // 2
        backbone.cpu()
        assert backbone.device == torch.device("cpu")
        assert lying_there(backbone) == set()
        assert device.held == 0
    assert {weight.dtype for weight in backbone.vae.parameters()} == {torch.float16}


def test_what_the_host_keeps_is_never_the_weight_itself(make):
    """Moved twice, as Lightning does, the weights are pinned already; a turn must not change what the host keeps."""
    backbone = make(StableDiffusion3, offload=True).backbone
    with running() as device:
        backbone.to(DEVICE)
        num_pinned = device.num_pinned
        backbone.to(DEVICE)
        assert device.num_pinned == num_pinned, "nothing is copied again"
        kept = {id(tensor) for tensors in backbone._on_host.values() for tensor in tensors.values()}
        assert not kept & {id(weight) for weight in backbone.parameters()}
        for name in ("vae", "transformer", "vae"):
            backbone.turn_of(name)
            assert lying_there(backbone) == {name}


def test_a_device_that_does_not_hold_a_network_keeps_none_of_it(make):
    backbone = make(StableDiffusion3, offload=True).backbone
    with running() as device:
        backbone.to(DEVICE)
        backbone.turn_of("vae")
        beside = device.held - num_bytes(backbone.vae)
        device.capacity = beside + num_bytes(backbone.network) // 2
        with pytest.raises(torch.OutOfMemoryError):
            backbone.turn_of("transformer")
        assert lying_there(backbone) == set()
        assert device.held == beside
        device.capacity = None
        backbone.turn_of("transformer")
        assert lying_there(backbone) == {"transformer"}


def test_networks_that_do_not_fit_side_by_side_say_what_would(make):
    backbone = make(StableDiffusion3).backbone
    with running() as device:
        device.capacity = num_bytes(backbone.network) + num_bytes(backbone.vae) // 2
        told = r"The networks of StableDiffusion3 .* with --model\.backbone\.offload true they lie there in turns"
        with pytest.raises(torch.OutOfMemoryError, match=told):
            backbone.to(DEVICE)


def test_a_cuda_graph_and_networks_in_turns_exclude_each_other(settings_of):
    backbone = StableDiffusion(**settings_of[StableDiffusion], compile_unet="reduce-overhead", offload=True)
    with pytest.raises(ValueError, match="exclude each other"):
        backbone.check()
