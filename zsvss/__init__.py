"""Zero-shot video semantic segmentation with frozen diffusion models."""

__version__ = "0.1.0"
