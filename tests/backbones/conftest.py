"""Tiny random networks of every layout that a backbone can load: a megabyte, milliseconds a pass."""

import hashlib
import json
import shutil

import pytest
import torch
from huggingface_hub import constants


@pytest.fixture
def editable_weights(tiny_weights, tmp_path):
    """A copy of the tiny image weights that a test may damage."""
    return shutil.copytree(tiny_weights, tmp_path / "weights")


@pytest.fixture
def edit_config(editable_weights):
    """Change entries of one of the copy's JSON files."""

    def edit(name, **entries):
        path = editable_weights / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return edit


@pytest.fixture
def weights_with_prompt(editable_weights):
    """Tiny weights with a tokenizer and a text encoder, whose embedding is returned too."""
    from transformers import CLIPTextConfig, CLIPTextModel

    (editable_weights / "context.safetensors").unlink()
    (editable_weights / "tokenizer").mkdir()
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    contents = {
        "vocab.json": {"!": 0, "a</w>": 1, "a": 2, "<|startoftext|>": 3, "<|endoftext|>": 4},
        # As in Stable Diffusion 2: the token that pads is told in the map alone.
        "special_tokens_map.json": {**special, "pad_token": "!"},
        "tokenizer_config.json": {
            **special,
            "pad_token": "<|endoftext|>",
            "model_max_length": 7,
            "tokenizer_class": "CLIPTokenizer",
        },
    }
    for name, content in contents.items():
        (editable_weights / "tokenizer" / name).write_text(json.dumps(content))
    (editable_weights / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        vocab_size=5,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=3,
        eos_token_id=4,
        pad_token_id=0,
    )
    encoder = CLIPTextModel(config).eval()
    encoder.save_pretrained(editable_weights / "text_encoder")
    with torch.no_grad():
        embedding = encoder(torch.tensor([[3, 4, 0, 0, 0, 0, 0]])).last_hidden_state
    return editable_weights, embedding


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No connection and an empty cache; returns the cache's folder."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def in_cache(offline):
    """Lay a folder out as the hub's cache does: links to files named by their hash."""

    def put(folder, name="owner/tiny", revision="main"):
        root = offline / f"models--{name.replace('/', '--')}"
        commit = hashlib.sha256(revision.encode()).hexdigest()[:40]
        for path in filter(lambda path: path.is_file(), folder.rglob("*")):
            content = path.read_bytes()
            blob = root / "blobs" / hashlib.sha256(content).hexdigest()
            link = root / "snapshots" / commit / path.relative_to(folder)
            for place in (blob, link):
                place.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link.unlink(missing_ok=True)
            link.symlink_to(blob)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / revision).write_text(commit)
        return name

    return put
