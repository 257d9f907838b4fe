"""Overlays, captions, tables for papers, and the report. Colours are in `zsvss.results.segment_colors`."""
