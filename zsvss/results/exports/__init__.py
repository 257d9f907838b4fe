"""Predictions in the formats of annotation tools, data sets and editors: one module a format.

Each is read by name, so that asking for one needs no other's libraries. None needs PyTorch, unless frames of a video
file are wanted.
"""

from __future__ import annotations

FORMATS = {
    "coco": ("coco", "Coco", "COCO: instances and panoptic, masks as RLE"),
    "yolo": ("yolo", "Yolo", "YOLO segmentation: polygons in text files"),
    "cvat-images": ("cvat_images", "CvatImages", "CVAT for images 1.1: masks"),
    "cvat-video": ("cvat_video", "CvatVideo", "CVAT for video 1.1: a track of polygons a segment"),
    "label-studio": ("label_studio", "LabelStudio", "Label Studio: brush masks, a task a frame"),
    "label-studio-video": ("label_studio_video", "LabelStudioVideo", "Label Studio: boxes over time, a task a video"),
    "vspw": ("vspw", "Vspw", "VSPW: class numbers as images"),
    "cityscapes": ("cityscapes", "CityscapesFiles", "Cityscapes: label ids, colours and polygons"),
    "davis": ("davis", "Davis", "DAVIS 2017: palette images of object numbers"),
    "camvid": ("camvid", "CamVidFiles", "CamVid: colour images and label_colors.txt"),
    "geojson": ("geojson", "GeoJson", "GeoJSON features in pixel coordinates"),
    "ffv1": ("matte", "Ffv1", "lossless black-and-white video of each segment (FFV1 in Matroska)"),
    "prores": ("matte", "ProRes", "black-and-white video of each segment for editors (ProRes 422 HQ in QuickTime)"),
    "numpy": ("numpy_arrays", "NumpyArrays", "one array of ids a video"),
}
"""Of each format: its module here, its class, and what it is in a few words."""


class ExportError(ValueError):
    """An export that cannot be made; the message says why and what to do."""
