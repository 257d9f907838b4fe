"""Diffusion models as the stages see them, behind the contract of :class:`zsvss.backbones.base.Backbone`."""
