"""What is measured: torchmetrics classes that know networks and tensors, not Lightning, data sets or files."""

from tinv.deprecation import moved
from tinv.metrics.accuracy import Accuracy
from tinv.metrics.base import InvarianceMetric
from tinv.metrics.clip_shift_map import ClipShiftMap
from tinv.metrics.descriptor_shift import DescriptorShift
from tinv.metrics.layer_equivariance import LayerEquivariance
from tinv.metrics.lie_derivative import LieDerivative
from tinv.metrics.lie_layers import LayerLieDerivative
from tinv.metrics.mean_cosine_similarity import MeanCosineSimilarity
from tinv.metrics.patch_matching import PatchMatching
from tinv.metrics.segmentation_consistency import SegmentationConsistency
from tinv.metrics.shift_accuracy import CenterAccuracy, DiagonalAccuracy, WorstCaseAccuracy
from tinv.metrics.shift_comb import ShiftComb
from tinv.metrics.shift_consistency import ShiftConsistency
from tinv.metrics.shift_ring import ShiftRing
from tinv.metrics.translation_map import TranslationSensitivityMap
from tinv.metrics.video_accuracy import VideoAccuracy
from tinv.metrics.views import ViewMetric

__all__ = [
    "Accuracy",
    "CenterAccuracy",
    "ClipShiftMap",
    "DescriptorShift",
    "DiagonalAccuracy",
    "InvarianceMetric",
    "LayerEquivariance",
    "LayerLieDerivative",
    "LieDerivative",
    "MeanCosineSimilarity",
    "PatchMatching",
    "SegmentationConsistency",
    "ShiftComb",
    "ShiftConsistency",
    "ShiftRing",
    "TranslationSensitivityMap",
    "VideoAccuracy",
    "ViewMetric",
    "WorstCaseAccuracy",
]

__getattr__ = moved(
    __name__,
    {"TranslationMap": "tinv.metrics:TranslationSensitivityMap", "UnmovedAccuracy": "tinv.metrics:CenterAccuracy"},
)
