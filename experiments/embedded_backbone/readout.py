"""Say in the queries what the network knows, without changing the network.

Attention knows queries q and keys k only by their product, so (A q) . (A^-T k) is the same network for any invertible A
a head. Training leaves A arbitrary, yet everything that clusters or compares queries depends on it. Here A is chosen so
that distances between queries become distances between what they tell of the targets of training, each part with a
weight, and a little of everything else. No labels are used.

One channel more is made constant: what a layer norm gives, divided by its gain, sums up to a constant, so one row of the
query's weights can say that constant. Being the largest, it turns the method's division by the largest magnitude into a
common factor.

Shape suffixes: B batch, h w latent cells, N tokens of all pictures, q channels of a query, d channels of the targets,
b blocks.
"""

from __future__ import annotations

from typing import NamedTuple

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
    centre_q = queries_Nq.mean(0)
    for attentions in denoiser.unet.up_blocks[2].attentions:
        norm, attention = attentions.transformer_blocks[0].norm1, attentions.transformer_blocks[0].attn1
        inverse_gain_q = 1 / norm.weight.double()
        total = float((norm.bias.double() * inverse_gain_q).sum())
        constant_1q = (inverse_gain_q / total)[None]
        old_qq, keys_qq = attention.to_q.weight.double(), attention.to_k.weight.double()
        # The constant row also takes the mean off the others, so that they are small beside the constant.
        plain_pq = rows_pq @ old_qq - (rows_pq @ centre_q)[:, None] * constant_1q
        new_qq = torch.cat([reading.constant * constant_1q, plain_pq])
        attention.to_q.weight.copy_(new_qq)
        attention.to_k.weight.copy_(torch.linalg.solve(new_qq.T, old_qq.T @ keys_qq))
