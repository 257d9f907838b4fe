"""Mean IoU, video consistency, region similarity and contour accuracy of objects, and the naming of clusters."""

from zsvss.metrics.benchmark import (
    ClassRow,
    class_table,
    fold_results,
    gather_results,
    headline_scores,
    total_confusion,
    video_table,
)
from zsvss.metrics.confusion import (
    SegmentationIoU,
    SegmentationScores,
    confusion_matrix,
    iou_from_confusion,
    segmentation_scores,
)
from zsvss.metrics.consistency import (
    ConsistencyProtocol,
    ConsistencyWindows,
    mean_consistency,
    video_consistency,
)
from zsvss.metrics.consistency_metric import VideoConsistency
from zsvss.metrics.evaluation import VideoEvaluator, VideoResult
from zsvss.metrics.naming import (
    ClusterNaming,
    FirstFrameNaming,
    GivenFirstFrameNaming,
    HungarianNaming,
    LabelledFrameNaming,
    PosthocMajorityNaming,
    PosthocVideoNaming,
)
from zsvss.metrics.objects import OBJECT_SCORES, ContourAccuracy, ObjectProtocol, RegionSimilarity

__all__ = [
    "OBJECT_SCORES",
    "ClassRow",
    "ClusterNaming",
    "ConsistencyProtocol",
    "ConsistencyWindows",
    "ContourAccuracy",
    "FirstFrameNaming",
    "GivenFirstFrameNaming",
    "HungarianNaming",
    "LabelledFrameNaming",
    "ObjectProtocol",
    "PosthocMajorityNaming",
    "PosthocVideoNaming",
    "RegionSimilarity",
    "SegmentationIoU",
    "SegmentationScores",
    "VideoConsistency",
    "VideoEvaluator",
    "VideoResult",
    "class_table",
    "confusion_matrix",
    "fold_results",
    "gather_results",
    "headline_scores",
    "iou_from_confusion",
    "mean_consistency",
    "segmentation_scores",
    "total_confusion",
    "video_consistency",
    "video_table",
]
