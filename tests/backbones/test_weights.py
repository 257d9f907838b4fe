"""Weights that are missing, damaged, unsafe or of another network: one clear error, before anything is read."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.weights import WeightsSource

UNET = "unet/diffusion_pytorch_model.safetensors"


def check(folder, kind=StableDiffusion, **settings):
    kind(str(folder), **settings).check()


def test_check_accepts_the_tiny_weights_and_reads_nothing(tiny_weights, tiny_video_weights):
    backbone = StableDiffusion(str(tiny_weights))
    backbone.check()
    assert not list(backbone.parameters())
    check(tiny_video_weights, StableVideoDiffusion)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("./missing", "has no 'missing'"),
        ("missing", "has no 'missing'"),
        ("a/b/missing", "has no 'a'"),
        ("/missing/folder", "/ has no 'missing' \\(it holds .*\\)"),
        ("~/missing", "has no 'missing'"),
        ("here/sd21/unet", "here has no 'sd21' \\(it holds sd15/\\)"),
        ("here/v1-5.safetensors", "here has no 'v1-5.safetensors' \\(it holds sd15/\\)"),
        ("https://huggingface.co/owner/name/tree/main", "give the id alone: owner/name"),
    ],
)
def test_a_path_that_is_not_there(name, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/sd15").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=re.escape(repr(name)) + " is not a folder.*" + problem) as caught:
        check(name)
    assert "\n" not in str(caught.value)


def test_a_path_of_two_parts_may_be_either(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights/sd15").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as caught:
        check("weights/sd21")
    assert "weights has no 'sd21' (it holds sd15/)" in str(caught.value)
    assert "https://huggingface.co/weights/sd21" in str(caught.value)


def test_formats_of_one_file_that_can_run_code(tmp_path):
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"model\.ckpt' is not a folder, and a \.ckpt file can run code"):
        check(tmp_path / "model.ckpt")


def test_a_folder_has_no_revision(tiny_weights):
    with pytest.raises(ValueError, match=r"backbone\.revision = 'main' is a branch.* Leave one of them out"):
        check(tiny_weights, revision="main")


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_missing_part(editable_weights, part):
    shutil.rmtree(editable_weights / part)
    with pytest.raises(FileNotFoundError, match=f"has no {part}/config.json; .* holds context.safetensors"):
        check(editable_weights)


def test_no_weights_file(editable_weights):
    (editable_weights / UNET).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no unet/diffusion_pytorch_model\.safetensors.*holds config\.json"
    ):
        check(editable_weights)


def test_formats_that_can_run_code(editable_weights):
    (editable_weights / UNET).rename((editable_weights / UNET).with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match="Only safetensors are loaded: other formats can run code"):
        check(editable_weights)


def test_another_variant(editable_weights):
    path = editable_weights / UNET
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"Choose among several files by backbone\.variant"):
        check(editable_weights)
    WeightsSource(str(editable_weights), "fp16").check("unet")


def as_variant(folder, part, variant, change=0.0):
    """Add a file of another variant, with other numbers in it."""
    path = folder / part / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor + change for name, tensor in load_file(path).items()}
    save_file(tensors, path.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    return tensors["conv_in.bias" if part == "unet" else "quant_conv.bias"]


def test_a_variant_of_the_parts_that_have_it(editable_weights, caplog):
    changed = as_variant(editable_weights, "unet", "non_ema", 0.5)
    with caplog.at_level("INFO", "zsvss"):
        backbone = StableDiffusion.from_pretrained(str(editable_weights), variant="non_ema")
    assert torch.equal(backbone.unet.conv_in.bias, changed)
    assert "vae has no non_ema file: its file without a variant is used." in caplog.text
    fingerprints = [
        StableDiffusion(str(editable_weights), variant=variant).fingerprint() for variant in (None, "non_ema")
    ]
    assert fingerprints[0] != fingerprints[1] == backbone.fingerprint()


def test_variants_by_part(editable_weights):
    for part in ("unet", "vae"):
        changed = as_variant(editable_weights, part, "fp16", 0.5)
    backbone = StableDiffusion.from_pretrained(str(editable_weights), variant={"vae": "fp16"})
    assert torch.equal(backbone.vae.quant_conv.bias, changed)
    plain = load_file(editable_weights / UNET)["conv_in.bias"]
    assert torch.equal(backbone.unet.conv_in.bias, plain)
    (editable_weights / "vae/diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no vae/diffusion_pytorch_model\.fp16\.safetensors"):
        check(editable_weights, variant={"vae": "fp16"})
    with pytest.raises(ValueError, match=r"variant: 'une' is none of the parts scheduler, unet, vae, "):
        check(editable_weights, variant={"une": "fp16"})


def test_a_variant_that_no_part_has(editable_weights):
    with pytest.raises(FileNotFoundError, match=r"backbone\.variant = 'fp15': none of unet, vae of .* has such a file"):
        check(editable_weights, variant="fp15")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", None], ids=repr)
def test_damaged_weights(editable_weights, content):
    path = editable_weights / UNET
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(
        ValueError, match=r"safetensors is damaged or not a safetensors file .* Fetch the weights again"
    ):
        check(editable_weights)


def test_damaged_config(editable_weights):
    (editable_weights / "vae/config.json").write_text("<html>")
    with pytest.raises(ValueError, match=r"vae/config\.json is not a JSON file"):
        check(editable_weights)


def test_weights_of_another_network(editable_weights):
    path = editable_weights / UNET
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("mid_block")}, path)
    with pytest.raises(ValueError, match=r"missing: \d+ tensors, such as 'mid_block\."):
        StableDiffusion.from_pretrained(str(editable_weights))


@pytest.mark.parametrize(
    "name",
    [
        "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
        "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.base_layer.weight",
        "lora_unet_down_blocks_0_attentions_0_proj_in.alpha",
    ],
)
def test_adapters_that_are_not_merged(editable_weights, name):
    path = editable_weights / UNET
    save_file({**load_file(path), name: torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=f"an adapter that is not merged into the weights: '{re.escape(name)}'. Merge"):
        check(editable_weights)


def test_tensors_that_the_network_has_not(editable_weights):
    path = editable_weights / UNET
    save_file({**load_file(path), "up_blocks.3.extra.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"\(unexpected: 'up_blocks\.3\.extra\.weight'"):
        StableDiffusion.from_pretrained(str(editable_weights))


def test_tensors_beside_a_text_encoder(weights_with_prompt):
    folder, embedding = weights_with_prompt
    path = folder / "text_encoder/model.safetensors"
    beside = {"text_model.embeddings.position_ids": torch.arange(7)[None], "text_projection.weight": torch.zeros(8, 8)}
    save_file({**load_file(path), **beside}, path, metadata={"format": "pt"})
    backbone = StableDiffusion.from_pretrained(str(folder))
    torch.testing.assert_close(backbone.context_Gmc[1:], embedding)


def test_weights_of_another_shape(editable_weights):
    path = editable_weights / UNET
    save_file({**load_file(path), "conv_in.bias": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="cannot be read as UNet2DConditionModel"):
        StableDiffusion.from_pretrained(str(editable_weights))


def test_weights_in_several_files(editable_weights):
    path = editable_weights / UNET
    tensors = list(load_file(path).items())
    parts = {"model-1.safetensors": tensors[::2], "model-2.safetensors": tensors[1::2]}
    for name, part in parts.items():
        save_file(dict(part), path.with_name(name))
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key, _ in part}})
    )
    path.unlink()
    backbone = StableDiffusion.from_pretrained(str(editable_weights))
    assert torch.equal(backbone.unet.conv_in.bias, dict(tensors)["conv_in.bias"])
    path.with_name("model-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no unet/model-2\.safetensors"):
        check(editable_weights)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"up_block_types": ["AttnUpBlock2D"] * 4}, "up_block_types hold AttnUpBlock2D; .* UpBlock2D and CrossAttnUp"),
        ({"_class_name": "UNetSpatioTemporalConditionModel"}, "is for StableVideoDiffusion|for StableVideoDiffusion"),
        (
            {"up_block_types": ["UpBlock2D"] * 4},
            "no attention at half the latents' resolution, .* There are: up.0.layer.0",
        ),
    ],
)
def test_another_layout(editable_weights, edit_config, entries, problem):
    edit_config("unet/config.json", **entries)
    with pytest.raises(ValueError, match=problem):
        check(editable_weights)


def test_another_autoencoder(editable_weights, edit_config):
    edit_config("vae/config.json", _class_name="AutoencoderTiny")
    with pytest.raises(ValueError, match="vae is a AutoencoderTiny; StableDiffusion needs a AutoencoderKL"):
        check(editable_weights)


def test_no_prompt(editable_weights):
    (editable_weights / "context.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"text_encoder/config\.json.*context\.safetensors with the emb"):
        check(editable_weights)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"])
def test_an_incomplete_tokenizer(weights_with_prompt, name):
    folder, _ = weights_with_prompt
    check(folder)
    (folder / "tokenizer" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no tokenizer/{re.escape(name)}; .*tokenizer holds "):
        check(folder)


def test_a_tokenizer_of_one_file(weights_with_prompt):
    from transformers import CLIPTokenizer

    folder, embedding = weights_with_prompt
    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "one")
    shutil.rmtree(folder / "tokenizer")
    (folder / "one").rename(folder / "tokenizer")
    assert (folder / "tokenizer/tokenizer.json").is_file()
    assert not (folder / "tokenizer/vocab.json").is_file()
    backbone = StableDiffusion.from_pretrained(str(folder))
    torch.testing.assert_close(backbone.context_Gmc[1:], embedding)


def test_a_damaged_tokenizer(weights_with_prompt):
    folder, _ = weights_with_prompt
    (folder / "tokenizer/vocab.json").write_text("<html>")
    with pytest.raises(ValueError, match="tokenizer cannot be read as a CLIPTokenizer"):
        StableDiffusion.from_pretrained(str(folder))


def test_a_tokenizer_of_another_encoder(weights_with_prompt):
    folder, _ = weights_with_prompt
    vocabulary = {"!": 0, "<|startoftext|>": 3, "<|endoftext|>": 9}
    (folder / "tokenizer/vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ValueError, match="has the token 9, and the text encoder knows only 5"):
        StableDiffusion.from_pretrained(str(folder))


def test_no_image_encoder(tiny_video_weights, tmp_path):
    folder = shutil.copytree(tiny_video_weights, tmp_path / "weights")
    (folder / "context.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no image_encoder/config\.json"):
        check(folder, StableVideoDiffusion)


def test_context_of_another_network(editable_weights):
    save_file({"cond": torch.zeros(1, 4, 9)}, editable_weights / "context.safetensors")
    with pytest.raises(ValueError, match=r"must hold 'cond' of shape \[1, m, 8\]; found \{'cond': \(1, 4, 9\)\}"):
        check(editable_weights)


def test_fingerprint(editable_weights, tmp_path, edit_config):
    def fingerprint(folder):
        return StableDiffusion(str(folder)).fingerprint()

    moved = shutil.copytree(editable_weights, tmp_path / "moved")
    before = fingerprint(editable_weights)
    assert fingerprint(moved) == before
    path = editable_weights / UNET
    tensors = load_file(path)
    tensors["conv_in.bias"] += 1
    save_file(tensors, path)
    changed = fingerprint(editable_weights)
    edit_config("scheduler/scheduler_config.json", prediction_type="v_prediction")
    assert len({before, changed, fingerprint(editable_weights)}) == 3
    save_file({"cond": torch.ones(1, 4, 8)}, moved / "context.safetensors")
    assert fingerprint(moved) != before


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"first_step": 25}, r"first_step = 25 must be in 0\.\.24"),
        ({"max_batch": 0}, "max_batch = 0 must be at least 1"),
    ],
)
def test_settings_out_of_range(settings, problem):
    with pytest.raises(ValueError, match=problem):
        StableDiffusion("owner/name", **settings)
