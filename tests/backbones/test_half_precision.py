"""What half precision harms runs in float32, however a run came to half precision."""

import json
from contextlib import nullcontext

import pytest
import torch
from pretend_device import DEVICE, running

from zsvss.backbones.half_precision import in_float32
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.wan import Wan


def autocast(dtype):
    return torch.autocast("cpu", dtype=dtype)


@pytest.fixture
def dtypes(monkeypatch):
    """Dtypes that convolutions compute in, as their outputs have it."""
    seen = set()

    def watch(network):
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
        return seen

    return watch


@torch.inference_mode()
@pytest.mark.parametrize("kind", [StableDiffusion, StableVideoDiffusion])
@pytest.mark.parametrize(
    ("weights_dtype", "context"),
    [(torch.float16, nullcontext()), (torch.float32, autocast(torch.float16))],
    ids=["16-true", "16-mixed"],
)
def test_the_encoder_runs_in_float32(settings_of, dtypes, kind, weights_dtype, context):
    backbone = kind.from_pretrained(**settings_of[kind]).to(weights_dtype)
    seen = dtypes(backbone.vae.encoder)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    with context:
        latents = backbone.encode(images, noise)
    assert seen == {torch.float32}
    assert latents.dtype == torch.float32
    assert {parameter.dtype for parameter in backbone.vae.parameters()} == {weights_dtype}


@torch.inference_mode()
@pytest.mark.parametrize(
    ("force_upcast", "encoder", "decoder"),
    [
        (None, torch.float32, torch.float16),
        (True, torch.float32, torch.float32),
        (False, torch.float16, torch.float16),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_the_checkpoints_own_word_is_honoured(editable_weights, dtypes, force_upcast, encoder, decoder, mixed):
    path = editable_weights / "vae/config.json"
    config = json.loads(path.read_text())
    config.pop("force_upcast")
    path.write_text(json.dumps(config if force_upcast is None else {**config, "force_upcast": force_upcast}))
    backbone = StableDiffusion.from_pretrained(str(editable_weights))
    if not mixed:
        backbone.half()
    with autocast(torch.float16) if mixed else nullcontext():
        seen = dtypes(backbone.vae.encoder)
        backbone.posterior(torch.zeros(1, 3, 32, 32))
        assert seen == {encoder}
        seen.clear()
        dtypes(backbone.vae.decoder)
        backbone.decode(torch.zeros(1, 4, 4, 4))
        assert seen == {decoder}


@torch.inference_mode()
def test_a_video_models_decoder_stays_in_float16(tiny_video_weights, dtypes):
    """As in diffusers' own pipeline, although the published config says ``force_upcast: true``."""
    backbone = StableVideoDiffusion.from_pretrained(str(tiny_video_weights)).half()
    assert backbone.source.config("vae")["force_upcast"] is True
    seen = dtypes(backbone.vae.decoder)
    backbone.decode(torch.zeros(1, 4, 8, 8))
    assert torch.float16 in seen


def test_bfloat16_is_left_alone():
    network = torch.nn.Conv2d(1, 1, 1).bfloat16()
    with in_float32([network, None], torch.device("cpu")):
        assert network.weight.dtype == torch.bfloat16
    with autocast(torch.bfloat16), in_float32([network], torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")


def test_a_shortage_halfway_leaves_the_weights_in_float16():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)).half()
    with running() as device:
        network.to(DEVICE)
        device.fail_at = {device.allocations + 3}
        with pytest.raises(torch.OutOfMemoryError), in_float32([network], DEVICE):
            pass
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float16}
        with in_float32([network], DEVICE):
            assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_an_exception_leaves_the_weights_in_float16():
    network = torch.nn.Conv2d(1, 1, 1).half()
    before = network.weight.clone()
    with pytest.raises(ZeroDivisionError), in_float32([network], torch.device("cpu")):
        raise ZeroDivisionError
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rotations_and_norms_of_wan_stay_in_float32(settings_of, dtype):
    """What diffusers keeps in float32 is not rounded, wherever the conversion begins."""
    whole = Wan.from_pretrained(**settings_of[Wan]).transformer
    transformer = torch.nn.Sequential(Wan.from_pretrained(**settings_of[Wan])).to(dtype)[0].transformer
    assert transformer.dtype == dtype
    assert transformer.blocks[0].attn1.to_q.weight.dtype == dtype
    assert transformer.rope.freqs_cos.dtype == torch.float32
    assert torch.equal(transformer.rope.freqs_cos, whole.rope.freqs_cos)
    assert torch.equal(transformer.rope.freqs_sin, whole.rope.freqs_sin)
    assert torch.equal(transformer.blocks[2].scale_shift_table, whole.blocks[2].scale_shift_table)
    time = "condition_embedder.time_embedder.linear_1.weight"
    assert torch.equal(transformer.get_parameter(time), whole.get_parameter(time))
