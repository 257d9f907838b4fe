"""Say in the queries what the network knows, without changing the network.

Attention knows queries q and keys k only by their product, so (A q) . (A^-T k) is the same network for any invertible A
a head. Training leaves A arbitrary, yet everything that clusters or compares queries depends on it. Here A is chosen so
that distances between queries become distances between what they tell of the targets of training, each part with a
weight, and a little of everything else. No labels are used.

One channel more is made constant: what a layer norm gives, divided by its gain, sums up to a constant, so one row of
the query's weights can say that constant. Being the largest, it turns the method's division by the largest magnitude
into a common factor. For the sum to be well above rounding, the norm's bias is raised; queries, keys and values that
follow it are changed so that nothing else sees it.

Shape suffixes: B batch, h w latent cells, N tokens of all pictures, q channels of a query, d channels of the targets,
b blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from networks import Denoiser, build_scheduler
from targets import Scale, parts, targets
from torch import Tensor


class Reading(NamedTuple):
    """What queries are made to say.

    Attributes:
        weights: of the parts of the targets; a part that is not named counts for nothing.
        rest: standard deviation of every direction of the queries that no part asks for.
        constant: value of the constant channel; must exceed every other magnitude.
        timestep: noise level at which queries are measured.
    """

    weights: dict[str, float]
    rest: float = 0.05
    constant: float = 4.0
    timestep: int = 39


@torch.inference_mode()
def measured_queries(denoiser: Denoiser, latents_Bchw: Tensor, timestep: int) -> Tensor:
    """Mean of the three blocks' queries [N, q], float64, with the learned context and noise from a fixed seed."""
    noise_Bchw = torch.randn(latents_Bchw.shape, generator=torch.Generator().manual_seed(0))
    scheduler, queries = build_scheduler(), []
    for clean, noise in zip(latents_Bchw.split(16), noise_Bchw.split(16), strict=True):
        timesteps_B = torch.full((len(clean),), timestep)
        _, queries_bBnq = denoiser(scheduler.add_noise(clean, noise, timesteps_B), timesteps_B, torch.ones(len(clean)))
        queries.append(queries_bBnq.mean(0).flatten(0, 1))
    return torch.cat(queries).double()


def metric_rows(queries_Nq: Tensor, targets_Nd: Tensor, weights_d: Tensor, rest: float) -> Tensor:
    """Rows [q - 1, q] that map queries to where Euclidean distances are those of the weighted targets.

    With the queries whitened, G = W^T W + rest^2 1 is the metric wanted, W being the weighted regression of the targets
    on them; the rows are its square root without its least direction, whose place the constant channel takes.
    """
    centred_Nq, wanted_Nd = queries_Nq - queries_Nq.mean(0), targets_Nd - targets_Nd.mean(0)
    values_q, vectors_qq = torch.linalg.eigh(centred_Nq.T @ centred_Nq / len(centred_Nq))
    whitening_qq = vectors_qq / (values_q + 1e-4 * values_q.max()).sqrt() @ vectors_qq.T
    white_Nq = centred_Nq @ whitening_qq
    told_dq = weights_d[:, None] * torch.linalg.lstsq(white_Nq, wanted_Nd).solution.T
    identity_qq = torch.eye(len(values_q), dtype=told_dq.dtype)
    metric_q, directions_qq = torch.linalg.eigh(told_dq.T @ told_dq + rest**2 * identity_qq)
    return (directions_qq * metric_q.sqrt()).T[1:] @ whitening_qq


@torch.no_grad()
def speak(
    denoiser: Denoiser, latents_Bchw: Tensor, colours_B3hw: Tensor, scales: dict[str, Scale], reading: Reading
) -> None:
    """Change `to_q` and `to_k` of the self-attention of output blocks 6..8 in place; the network's output stays.

    Args:
        denoiser: trained; its blocks 6..8 have one head each.
        latents_Bchw: latents of a few hundred training pictures.
        colours_B3hw: colours of their token cells.
        scales: of the targets.
        reading: what queries are made to say.
    """
    queries_Nq = measured_queries(denoiser, latents_Bchw, reading.timestep)
    targets_Nd = targets(latents_Bchw, colours_B3hw, scales).flatten(0, 1).double()
    weights_d = torch.zeros(targets_Nd.shape[1], dtype=torch.float64)
    for name, weight in reading.weights.items():
        weights_d[parts()[name]] = weight
    rows_pq = metric_rows(queries_Nq, targets_Nd, weights_d, reading.rest)
    for transformer in denoiser.unet.up_blocks[2].attentions:
        block = transformer.transformer_blocks[0]
        _change(block.norm1, block.attn1, rows_pq, queries_Nq.mean(0), reading.constant)


def _change(norm: Any, attention: Any, rows_pq: Tensor, centre_q: Tensor, constant: float) -> None:
    """Let one block's queries say `rows_pq` (query - `centre_q`), and `constant` in a first channel.

    The norm gives n = gain h + bias with sum(h) = 0. With a bias greater by `gain`, sum(n / gain) is a constant well
    above rounding. Keys then change by a constant, which softmax takes off; values too, which the output's bias takes
    off, as the weights of attention sum to one.
    """
    gain_q, bias_q = norm.weight.double(), norm.bias.double()
    total = float(((bias_q + gain_q) / gain_q).sum())
    constant_1q = (1 / gain_q / total)[None]
    old_qq, keys_qq = attention.to_q.weight.double(), attention.to_k.weight.double()
    # What the norm's greater bias adds to the rows, and their mean, are taken off by the constant.
    surplus_p = rows_pq @ (old_qq @ gain_q + centre_q)
    new_qq = torch.cat([constant * constant_1q, rows_pq @ old_qq - surplus_p[:, None] * constant_1q])
    output = attention.to_out[0]
    output.bias.sub_((output.weight.double() @ attention.to_v.weight.double() @ gain_q).to(output.bias))
    norm.bias.add_(norm.weight)
    attention.to_q.weight.copy_(new_qq)
    attention.to_k.weight.copy_(torch.linalg.solve(new_qq.T, _unshifted(old_qq, gain_q, constant_1q).T @ keys_qq))


def _unshifted(old_qq: Tensor, gain_q: Tensor, constant_1q: Tensor) -> Tensor:
    """Weights that give of the norm's new output the queries that the old ones gave of the old output."""
    return old_qq - (old_qq @ gain_q)[:, None] * constant_1q
