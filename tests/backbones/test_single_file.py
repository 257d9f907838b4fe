"""Checkpoints in one file: the same networks as from a diffusers folder, without network; other files are named."""

import json
import re
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from zsvss.backbones import single_file
from zsvss.backbones.single_file import SingleFile
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion

UNET, VAE, CLIP, OPEN_CLIP = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.model.",
)
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
SETTINGS = single_file._SETTINGS
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_NAMES = {
    r"mid_block\.attentions\.0\.": "mid.attn_1.",
    "group_norm": "norm",
    r"to_([qkv])\.": r"\1.",
    r"to_out\.0": "proj_out",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    r"down_blocks\.(\d)\.resnets\.(\d)": r"down.\1.block.\2",
    r"down_blocks\.(\d)\.downsamplers\.0": r"down.\1.downsample",
    r"mid_block\.resnets\.0": "mid.block_1",
    r"mid_block\.resnets\.1": "mid.block_2",
}
OPEN_CLIP_NAMES = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def unet_name(name):
    """A tensor of the U-Net by its name in the original code."""
    for ours, theirs in UNET_ENDS.items():
        if name.startswith(ours):
            return UNET + name.replace(ours, theirs)
    place, block, kind, layer, rest = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d))?\.(\w+)\.(\d)\.(.*)", name).groups()
    block = int(block or 0)
    if kind == "resnets":
        rest = re.sub("|".join(RESNET), lambda found: RESNET[found[0]], rest)
    if place == "mid":
        return f"{UNET}middle_block.{2 * int(layer) if kind == 'resnets' else 1}.{rest}"
    if kind == "downsamplers":
        return f"{UNET}input_blocks.{3 * block + 3}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"{UNET}output_blocks.{3 * block + 2}.{1 if block == 0 else 2}.{rest}"
    number = 3 * block + int(layer) + (place == "down")
    return f"{UNET}{'input' if place == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}.{rest}"


def vae_tensors(tensors):
    """The autoencoder by its names in the original code, where attention projects by 1x1 convolutions."""
    renamed = {}
    for name, tensor in tensors.items():
        is_projection = "attentions" in name and name.endswith("weight") and tensor.ndim == 2
        for ours, theirs in VAE_NAMES.items():
            name = re.sub(ours, theirs, name)
        name = re.sub(r"up_blocks\.(\d)\.", lambda found: f"up.{3 - int(found[1])}.", name)
        name = name.replace("resnets", "block").replace("upsamplers.0", "upsample")
        renamed[VAE + name] = tensor[..., None, None].clone() if is_projection else tensor
    return renamed


def open_clip_tensors(tensors):
    """A text encoder by OpenCLIP's names: one tensor for query, key and value, and a layer more than is used."""
    renamed = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("text_model.")
        if "q_proj" in short:
            stem, _, kind = short.partition(".q_proj.")
            joint = torch.cat([tensors[name.replace("q_proj", f"{p}_proj")] for p in "qkv"])
            short, tensor = f"{stem}.in_proj_{kind}", joint
        elif "k_proj" in short or "v_proj" in short:
            continue
        for ours, theirs in OPEN_CLIP_NAMES.items():
            short = short.replace(ours, theirs)
        renamed[OPEN_CLIP + short] = tensor
    return renamed | {f"{OPEN_CLIP}logit_scale": torch.zeros(())}


@pytest.fixture
def no_network(monkeypatch, offline):
    def refuse(*_arguments):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def original(weights_with_prompt, tmp_path, monkeypatch, no_network):
    """Tiny weights as one file of version 1 or 2, and settings of that size; returns a function that writes one."""
    folder, _ = weights_with_prompt
    unet = load_file(folder / UNET_FILE)
    vae = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder/model.safetensors")
    configs = {
        part: json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae", "text_encoder")
    }
    monkeypatch.setattr(single_file, "_SETTINGS", tmp_path)

    def write(version=1, metadata=None, without=(), **more):
        monkeypatch.setattr(single_file, "_KIND_OF_WIDTH", {8: f"stable_diffusion_{version}"})
        shipped = json.loads((SETTINGS / f"stable_diffusion_{version}.json").read_text())
        tokens = {"start": 3, "end": 4, "pad": 0, "model_max_length": 7}
        settings = {**shipped, **configs, "tokenizer": tokens}
        (tmp_path / f"stable_diffusion_{version}.json").write_text(json.dumps(settings))
        tensors = {unet_name(name): tensor for name, tensor in unet.items()} | vae_tensors(vae)
        if version == 1:
            tensors |= {CLIP + name.removeprefix("text_model."): tensor for name, tensor in text.items()}
            tensors[f"{CLIP}embeddings.position_ids"] = torch.arange(7)[None]
        else:
            tensors |= open_clip_tensors(text)
        tensors |= {"alphas_cumprod": torch.zeros(1000), "model_ema.decay": torch.zeros(())}
        tensors = {name: t.contiguous() for name, t in tensors.items() if not name.startswith(tuple(without))} | more
        path = tmp_path / f"v{version}.safetensors"
        save_file(tensors, path, metadata=metadata)
        return path

    return write


@pytest.mark.parametrize("version", [1, 2])
def test_one_file_holds_the_same_networks(weights_with_prompt, original, version):
    folder, embedding = weights_with_prompt
    settings = {"prediction_type": "v_prediction"} if version == 2 else {}
    ours = StableDiffusion.from_pretrained(str(original(version)), **settings)
    theirs = StableDiffusion.from_pretrained(str(folder), **settings)
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    torch.testing.assert_close(ours.context_Gmc[1:], embedding)
    assert ours.sigmas == theirs.sigmas
    assert ours.prediction_type == theirs.prediction_type
    assert not any(tensor.is_meta for tensor in [*ours.buffers(), *ours.parameters()])


def test_half_precision_files_load_in_float32(original):
    path = original()
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
    save_file(halves, path)
    backbone = StableDiffusion.from_pretrained(str(path))
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_a_file_of_version_2_does_not_tell_what_it_predicts(original):
    with pytest.raises(ValueError, match=r"v2\.safetensors/scheduler does not tell what the network predicts\. Set"):
        StableDiffusion(str(original(2))).check()
    for told, meant in (("v", "v_prediction"), ("epsilon", "epsilon")):
        path = original(2, metadata={"modelspec.prediction_type": told})
        assert StableDiffusion.from_pretrained(str(path)).prediction_type == meant


def test_averaged_weights_are_preferred(weights_with_prompt, original):
    folder, _ = weights_with_prompt
    unet = load_file(folder / UNET_FILE)
    averaged = {f"model_ema.{unet_name(name)[6:].replace('.', '')}": tensor + 1 for name, tensor in unet.items()}
    path = original(**averaged)
    biases = [
        StableDiffusion.from_pretrained(str(path), variant=variant).unet.conv_in.bias for variant in (None, "non_ema")
    ]
    assert torch.equal(biases[0], unet["conv_in.bias"] + 1)
    assert torch.equal(biases[1], unet["conv_in.bias"])


def test_fingerprint(original):
    path = original()
    before = StableDiffusion(str(path)).fingerprint()
    moved = path.rename(path.with_name("moved.safetensors"))
    assert StableDiffusion(str(moved)).fingerprint() == before
    tensors = load_file(moved)
    tensors[f"{UNET}out.2.bias"] += 1
    save_file(tensors, moved)
    assert StableDiffusion(str(moved)).fingerprint() != before


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"without": ["cond_stage_model."]}, FileNotFoundError, r"has no text_encoder \(no tensor begins with 'cond_"),
        ({"without": ["first_stage_model."]}, FileNotFoundError, r"has no vae \(no tensor begins with 'first_"),
        (
            {f"{UNET}input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)},
            ValueError,
            "in_channels = 9 must be 4; it also takes a mask and a masked image",
        ),
        ({f"{UNET}label_emb.weight": torch.zeros(9, 4)}, ValueError, "num_class_embeds = 9: .* class embeddings"),
        ({"lora_unet_mid.lora_up.weight": torch.zeros(2, 2)}, ValueError, "an adapter that is not merged"),
        (
            {"control_model.out.weight": torch.zeros(2, 2)},
            ValueError,
            "more than Stable Diffusion .*, such as 'contr",
        ),
        (
            {f"{UNET}input_blocks.1.1.time_stack.weight": torch.zeros(2)},
            ValueError,
            "is a video model, such as Stable Video Diffusion",
        ),
    ],
    ids=lambda value: next(iter(value), None) if isinstance(value, dict) else "",
)
def test_files_that_do_not_fit(original, changes, error, problem):
    with pytest.raises(error, match=problem) as caught:
        StableDiffusion(str(original(**changes))).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.999])
def test_a_file_that_is_cut_short(original, keep):
    path = original()
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep in (0, 5) else int(keep * len(content))])
    with pytest.raises(
        ValueError, match=r"v1\.safetensors is damaged or not a safetensors file .*Fetch the weights ag"
    ):
        StableDiffusion(str(path)).check()


def test_a_file_without_its_first_layer(original):
    path = original(without=[f"{UNET}input_blocks.0.0.weight"])
    with pytest.raises(
        ValueError, match=r"v1\.safetensors has no tensor model\.diffusion_model\.input_blocks\.0\.0\.w"
    ):
        StableDiffusion(str(path)).check()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"without": [f"{UNET}middle_block.1."]}, r"unet holds .*missing: \d+ tensors, such as 'mid_block\.attent"),
        ({"without": [f"{VAE}encoder.mid."]}, r"vae holds .*missing: \d+ tensors, such as 'encoder\.mid_block"),
        ({"without": [f"{CLIP}final"]}, r"text_encoder holds .*missing: 2 tensors, such as 'final_layer_norm"),
        ({f"{UNET}out.2.bias": torch.zeros(5)}, "unet cannot be read as UNet2DConditionModel: .*size mismatch"),
    ],
)
def test_files_that_lack_tensors(original, changes, problem):
    with pytest.raises(ValueError, match=re.compile(problem, re.DOTALL)):
        StableDiffusion.from_pretrained(str(original(**changes)))


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            ["double_blocks.0.img_attn.norm.key_norm.scale", "guidance_in.in_layer.bias", "img_in.weight"],
            "another kind .'flux",
        ),
        (["conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"], "another kind .'xl_base'"),
        (["down_blocks.0.resnets.0.conv1.weight"], "one network of a diffusers folder"),
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "an adapter that is not merged"),
        (["decoder.blocks.0.weight"], "not a checkpoint that is known: it holds 1 tensors, such as 'decoder.blocks.0."),
    ],
)
def test_files_of_other_kinds(tmp_path, names, problem, no_network):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(4, 4) for name in names}, path)
    with pytest.raises(ValueError, match=problem):
        StableDiffusion(str(path)).check()


def test_settings_that_a_single_file_has_not(original):
    path = str(original())
    with pytest.raises(ValueError, match=r"backbone\.variant = 'fp16': .* is a single file; variant must be null or"):
        StableDiffusion(path, variant="fp16").check()
    with pytest.raises(ValueError, match=r"backbone\.revision = 'main': .* revision must be null"):
        StableDiffusion(path, revision="main").check()
    with pytest.raises(ValueError, match=r"is a UNet2DConditionModel .* needs a UNetSpatioTemporalConditionModel"):
        StableVideoDiffusion(path).check()


@pytest.mark.parametrize(
    ("version", "unet", "text_encoder", "prompt"),
    [
        (1, 859_520_964, 123_060_480, [49406, 49407, 49407]),
        (2, 865_910_724, 340_387_840, [49406, 49407, 0]),
    ],
)
def test_the_settings_that_ship_are_those_of_the_published_networks(version, unet, text_encoder, prompt):
    """Numbers of parameters as they are published."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    settings = json.loads((SETTINGS / f"stable_diffusion_{version}.json").read_text())
    with torch.device("meta"):
        networks = (
            UNet2DConditionModel.from_config(settings["unet"]),
            AutoencoderKL.from_config(settings["vae"]),
            CLIPTextModel(CLIPTextConfig(**settings["text_encoder"])),
        )
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == [unet, 83_653_863, text_encoder]
    source = SingleFile("never read")
    source._settings = settings
    assert source.empty_prompt().shape == (1, 77)
    assert source.empty_prompt()[0, [0, 1, 76]].tolist() == prompt
