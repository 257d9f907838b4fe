"""Names of places: what exists, what does not, and that injection reaches every layer."""

import pytest
import torch
from torch.nn import functional

from zsvss.backbones.base import FeatureKey
from zsvss.backbones.cogvideox import CogVideoX
from zsvss.backbones.feature_places import FeaturePlace, FeaturePlaces, PlacedBlock
from zsvss.backbones.flux import Flux
from zsvss.backbones.hooks import attention_seams
from zsvss.backbones.pixart import PixArt
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
from zsvss.backbones.unet_layout import UNetLayout
from zsvss.stages.features import AttentionFeatures
from zsvss.stages.joint_features import BlockFeatures, LabFeatures

# As in the configs of Stable Diffusion XL and SSD-1B.
XL = {
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
}
SSD_1B = {
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [0, 2, 4],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}
LAYERS = {"self": ("query", "key"), "cross": ("query",)}


def test_depths_of_deep_and_uneven_networks():
    xl, ssd = UNetLayout(XL), UNetLayout(SSD_1B)
    assert [block.depth for block in xl.blocks] == [10, 10, 10, 2, 2, 2, 0, 0, 0]
    assert [block.depth for block in ssd.blocks] == [4, 4, 10, 2, 1, 1, 0, 0, 0]
    assert [xl.stride(block) for block in (0, 3, 8)] == [4, 2, 1]
    assert xl.half_resolution == ssd.half_resolution == [3, 4, 5]
    assert not xl.is_the_papers


def test_names_lead_to_places_and_back():
    places = UNetLayout(XL).places(LAYERS)
    assert places.find("up.0.attn.0.block.5:output") == FeaturePlace(0, "transformer", "output", 5)
    assert places.find("up.1.attn.2.block.1:cross.query") == FeaturePlace(5, "cross", "query", 1)
    assert places.find("up.2.layer.0:output") == FeaturePlace(6, "block", "output")
    assert all(places.name(place) == name for name, place in places.by_name.items())
    assert places.clustered == tuple(f"up.1.attn.{j}.block.0:self.query" for j in range(3))
    assert places.compared == ("up.1.attn.1.block.0:self.query",)
    assert places.grid(places.block("up.1.attn.0"), (64, 96)) == (32, 48)
    assert FeaturePlaces([PlacedBlock("block.0", 2, LAYERS, None)]).find("block.0:self.key").projection == "key"


def test_what_does_not_exist_is_answered_by_what_does():
    places = UNetLayout(XL).places(LAYERS)
    with pytest.raises(
        ValueError, match=r"no place 'up.1.attn.0.block.2:self.query'. Did you mean .* There are: "
    ) as said:
        places.find("up.1.attn.0.block.2:self.query")
    assert str(said.value).endswith(
        "There are: up.0.attn.0 to up.0.attn.2 with .block.0 to .block.9 (:self.query|key, :cross.query, :output), or "
        ":output of the whole; up.1.attn.0 to up.1.attn.2 with .block.0 to .block.1 (:self.query|key, :cross.query, "
        ":output), or :output of the whole; up.2.layer.0 to up.2.layer.2 with :output."
    )
    with pytest.raises(ValueError, match=r"number 7 is defined for U-Nets of four up blocks of three layers alone"):
        places.block(7)
    with pytest.raises(ValueError, match=r"no block 'up.9'\. There are: "):
        places.block("up.9")


def test_the_papers_numbers_are_aliases(tiny_weights):
    backbone = StableDiffusion(str(tiny_weights))
    named = AttentionFeatures(places=[f"up.2.attn.{j}.block.0:self.query" for j in range(3)])
    expected = [FeatureKey(24, block) for block in (6, 7, 8)]
    assert named.keys(backbone) == AttentionFeatures((6, 7, 8)).keys(backbone) == expected
    assert AttentionFeatures().keys(backbone) == expected
    assert BlockFeatures("up.2.attn.2").keys(backbone) == BlockFeatures(8).keys(backbone)
    assert LabFeatures("up.3.attn.0").grid_of(backbone, (8, 16)) == LabFeatures(9).grid_of(backbone, (8, 16)) == (8, 16)
    assert StableDiffusion(str(tiny_weights), modulation_block="up.2.attn.1").modulation_block == 7


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        (
            AttentionFeatures(places=["up.2.attn.1.block.1:self.query"]),
            r"features\.places, of StableDiffusion: there is no",
        ),
        (
            AttentionFeatures((1,)),
            r"StableDiffusion has no \(1, 'self', 'query', 0\) to record\. There are: up\.0\.layer",
        ),
    ],
)
def test_features_of_places_that_are_not_there(tiny_weights, features, problem):
    backbone = StableDiffusion(str(tiny_weights))
    with pytest.raises(ValueError, match=problem):
        backbone.checked(features.keys(backbone))


def test_blocks_and_places_exclude_each_other():
    with pytest.raises(ValueError, match=r"features\.places = \['block.9:output'\] .* blocks must be null"):
        AttentionFeatures((7,), places=["block.9:output"])


def test_injection_that_reaches_less_than_all_layers_is_refused(tiny_weights):
    backbone = StableDiffusion(str(tiny_weights))
    backbone.layout = UNetLayout({"up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"]})
    with pytest.raises(
        ValueError, match=r"injection would reach 6 of 9 'self'-attention layers .* differ at up_blocks\.3"
    ):
        backbone.load()


@torch.inference_mode()
def test_the_output_of_a_transformer_block_is_recorded(tiny_weights):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights), first_step=24)
    kept = []
    block = backbone.unet.up_blocks[1].attentions[0].transformer_blocks[0]
    handle = block.register_forward_hook(lambda _module, _args, result: kept.append(result))
    noised = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    key = FeatureKey(24, *backbone.places.find("up.1.attn.0.block.0:output"))
    recording = backbone.record(noised, backbone.condition(noised, None), [key])
    handle.remove()
    assert torch.equal(recording.tensors[key], torch.cat(kept).unflatten(0, (2, 2)))
    assert recording.grids[key.block] == (2, 2)


def test_a_transformer_whose_injection_would_miss_layers_is_refused(settings_of, monkeypatch):
    monkeypatch.setattr(PixArt, "seams", lambda *_: {"self": attention_seams("attn1")})
    with pytest.raises(ValueError, match=r"reach 4 of 8 attention layers, .* at transformer_blocks\.0\.attn2"):
        PixArt(**settings_of[PixArt]).load()


def test_a_transformer_lists_its_places(settings_of):
    backbone = StableDiffusion3(**settings_of[StableDiffusion3])
    with pytest.raises(ValueError, match=r"places, of StableDiffusion3: there is no place 'block.9:query'") as said:
        AttentionFeatures(places=["block.9:query"]).keys(backbone)
    joint = ":image.query|key|value|output|input, :text.query|key|value"
    assert f"block.0 to block.1 with {joint}, :self.query|key|value|output|input, :output" in str(said.value)
    assert f"block.2 to block.3 with {joint}, :output" in str(said.value)
    with pytest.raises(ValueError, match="the paper's number 7 is defined for U-Nets"):
        AttentionFeatures((7,)).keys(backbone)


def adaptive_norm(tokens, shift_and_scale):
    """A norm without weights, scaled and shifted by what the timestep makes of them."""
    shift_b1c, scale_b1c = (part[:, None] for part in shift_and_scale[:2])
    return functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale_b1c) + shift_b1c


@pytest.mark.parametrize(
    ("kind", "block", "layer"),
    [(StableDiffusion3, 1, "image"), (Flux, 1, "image"), (Flux, 3, "image"), (PixArt, 1, "self")],
)
@torch.inference_mode()
def test_the_input_of_attention_is_the_last_block_s_output_behind_the_adaptive_norm(kind, block, layer, settings_of):
    backbone = kind.from_pretrained(**settings_of[kind])
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(0))
    step = backbone.steps[-1]
    keys = FeatureKey(step, block - 1, "block", "output"), FeatureKey(step, block, layer, "input")
    told = []
    embeds = backbone.transformer.adaln_single if kind is PixArt else backbone.transformer.time_text_embed
    handle = embeds.register_forward_hook(lambda _module, _inputs, result: told.append(result))
    conditioning = backbone.condition(torch.zeros(2, 3, 64, 64), noise)
    recording = backbone.record(noise.diffusion_Tchw, conditioning, keys, for_denoising=False)
    handle.remove()
    output_bnc, found_bnc = (recording.half(key) for key in keys)
    module = backbone._blocks[block]
    if kind is PixArt:
        table_b6c = module.scale_shift_table + told[-1][0].unflatten(1, (6, -1))
        expected_bnc = adaptive_norm(output_bnc, table_b6c[-2:].unbind(1))
    else:
        norm = module.norm1 if hasattr(module, "norm1") else module.norm
        numbers = norm.linear(functional.silu(told[-1]))[-2:]
        expected_bnc = adaptive_norm(output_bnc, numbers.split(output_bnc.shape[2], 1))
    torch.testing.assert_close(found_bnc, expected_bnc, rtol=1e-4, atol=1e-4)
    features = AttentionFeatures(places=[f"block.{block}:{layer}.input"], normalization="none", massive=1.5)
    read_bnc = features(backbone, recording, torch.zeros(2, 3, 64, 64))
    magnitude_c = expected_bnc.abs().mean((0, 1))
    is_massive_c = magnitude_c > 1.5 * torch.quantile(magnitude_c, 0.5, interpolation="lower")
    assert is_massive_c.any()
    assert not is_massive_c.all()
    torch.testing.assert_close(read_bnc, expected_bnc.where(~is_massive_c, 0.0), rtol=1e-4, atol=1e-4)


def test_what_is_massive_is_a_multiple_of_the_median():
    with pytest.raises(ValueError, match=r"features\.massive = 1 must be null or above 1"):
        AttentionFeatures(massive=1)


@torch.inference_mode()
def test_normed_queries_and_keys_are_what_attention_multiplies(settings_of, monkeypatch):
    """Of CogVideoX, whose tiny network does not rotate them."""
    backbone = CogVideoX.from_pretrained(**settings_of[CogVideoX])
    noise = backbone.sample_noise(5, 64, 64, torch.Generator().manual_seed(0))
    step, block = backbone.steps[-1], len(backbone.places.blocks) - 1
    keys = [FeatureKey(step, block, "image", name) for name in ("normed_query", "normed_key")]
    seen = []
    plain = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional,
        "scaled_dot_product_attention",
        lambda q, k, v, **more: seen.append((q, k)) or plain(q, k, v, **more),
    )
    recording = backbone.record(noise.diffusion_Tchw, backbone.condition(torch.zeros(5, 3, 64, 64), noise), keys)
    num_text = backbone.context_Gmc.shape[1]
    for key, multiplied in zip(keys, seen[-1], strict=True):
        expected_nc = multiplied[0, :, num_text:].transpose(0, 1).flatten(1)
        assert torch.equal(recording.half(key).flatten(0, 1), expected_nc)
    assert backbone.places.compared == ("block.1:image.normed_query",)
    assert backbone.places.head_channels == seen[-1][0].shape[3]
