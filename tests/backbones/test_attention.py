"""Attention is edited for the length of a context and is otherwise diffusers' own."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from zsvss.backbones.attention import AttentionEdit, captured_calls, edited_attention

PATH = "up_blocks.2.attentions.1.transformer_blocks.0"


@pytest.fixture
def unet(tiny_weights):
    return UNet2DConditionModel.from_pretrained(tiny_weights, subfolder="unet", low_cpu_mem_usage=False).eval()


def run(unet):
    generator = torch.Generator().manual_seed(0)
    x, context = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 16), (2, 4, 8)))
    with torch.inference_mode():
        return unet(x, 39, context).sample


def recording():
    return AttentionEdit(record=frozenset({"query", "key", "value", "output"}))


def test_recording_is_diffusers_attention(unet):
    expected = run(unet)
    with edited_attention(unet, {name.removesuffix(".processor"): recording() for name in unet.attn_processors}):
        torch.testing.assert_close(run(unet), expected, rtol=1e-5, atol=1e-5)  # another processor, another order
    assert torch.equal(run(unet), expected)


@pytest.mark.parametrize("layer", ["attn1", "attn2"])
def test_what_was_recorded_can_be_put_in_place(unet, layer):
    kept = recording()
    with edited_attention(unet, {f"{PATH}.{layer}": kept}):
        expected = run(unet)
    assert kept.recorded["query"].shape == (2, 4 * 8, 16)
    tensors = kept.recorded
    for edit in (
        AttentionEdit(replace={"query": tensors["query"], "key": tensors["key"]}),
        AttentionEdit(replace={"output": tensors["output"]}),
    ):
        with edited_attention(unet, {f"{PATH}.{layer}": edit}):
            torch.testing.assert_close(run(unet), expected, rtol=1e-5, atol=1e-5)
    with edited_attention(unet, {f"{PATH}.{layer}": AttentionEdit(replace={"output": tensors["output"] + 1})}):
        assert (run(unet) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("num_queries", [1, 20, 32])  # of 32
def test_samples_that_share_a_map(unet, monkeypatch, num_queries):
    monkeypatch.setattr("zsvss.backbones.attention._QUERY_CHUNK_SIZE", num_queries)
    kept = recording()
    with edited_attention(unet, {f"{PATH}.attn1": kept}):
        run(unet)
    query, key, x = kept.recorded["query"], kept.recorded["key"], torch.randn(5, 4, 8, 16)
    map_B = torch.tensor([1, 0, 1, 1, 0])
    outputs = []
    for edit in (
        AttentionEdit(replace={"query": query[map_B], "key": key[map_B]}),
        AttentionEdit(replace={"query": query, "key": key}, shared_map_B=map_B),
    ):
        with torch.inference_mode(), edited_attention(unet, {f"{PATH}.attn1": edit}):
            outputs.append(unet(x, 39, torch.ones(5, 4, 8)).sample)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)


def test_offset_is_added_to_the_output(unet):
    kept, offset_Bn = recording(), torch.arange(2.0 * 32).view(2, 32)
    with edited_attention(unet, {f"{PATH}.attn2": kept}):
        run(unet)
    moved = kept.recorded["output"] + offset_Bn[..., None]
    results = []
    for edit in (AttentionEdit(offset_Bn=offset_Bn), AttentionEdit(replace={"output": moved})):
        with edited_attention(unet, {f"{PATH}.attn2": edit}):
            results.append(run(unet))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_unknown_layer(unet):
    before = dict(unet.attn_processors)
    with (
        pytest.raises(KeyError, match=r"no attention layer 'mid\.attn9'"),
        edited_attention(unet, {"mid.attn9": recording()}),
    ):
        pass
    assert unet.attn_processors == before


def test_contexts_nest(unet):
    outer, inner = recording(), recording()
    with edited_attention(unet, {f"{PATH}.attn1": outer}):
        with edited_attention(unet, {f"{PATH}.attn2": inner}):
            run(unet)
        assert outer.recorded
        assert inner.recorded
        inner.recorded.clear()
        run(unet)
        assert not inner.recorded


def test_captured_calls_leave_no_hooks(unet):
    calls = {}

    def interrupted():
        nonlocal calls
        with captured_calls({"out": unet.conv_out}) as calls:
            calls["expected"] = run(unet)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert torch.equal(calls["out"][1], calls["expected"])
    assert not unet.conv_out._forward_hooks
