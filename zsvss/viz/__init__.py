"""Palettes, overlays and figures."""
