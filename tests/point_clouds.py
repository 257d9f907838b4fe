"""Points to cluster."""

import torch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(num_points=300, num_channels=8, num_blobs=6, seed=0):
    centers = torch.randn(num_blobs, num_channels, generator=generator(seed)) * 3
    which = torch.randint(num_blobs, (num_points,), generator=generator(seed + 1))
    return centers[which] + torch.randn(num_points, num_channels, generator=generator(seed + 2))
