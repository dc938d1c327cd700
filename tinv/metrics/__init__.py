"""What is measured: torchmetrics classes that know networks and tensors, and nothing of Lightning or data sets."""

from tinv.metrics.accuracy import Accuracy
from tinv.metrics.base import InvarianceMetric
from tinv.metrics.clip_shift_map import ClipShiftMap
from tinv.metrics.descriptor_shift import DescriptorShift
from tinv.metrics.layer_equivariance import LayerEquivariance
from tinv.metrics.mean_cosine_similarity import MeanCosineSimilarity
from tinv.metrics.patch_matching import PatchMatching
from tinv.metrics.shift_accuracy import DiagonalAccuracy, UnmovedAccuracy, WorstCaseAccuracy
from tinv.metrics.shift_consistency import ShiftConsistency
from tinv.metrics.translation_map import TranslationMap
from tinv.metrics.video_accuracy import VideoAccuracy

__all__ = [
    "Accuracy",
    "InvarianceMetric",
    "ClipShiftMap",
    "DescriptorShift",
    "DiagonalAccuracy",
    "LayerEquivariance",
    "MeanCosineSimilarity",
    "PatchMatching",
    "ShiftConsistency",
    "TranslationMap",
    "UnmovedAccuracy",
    "VideoAccuracy",
    "WorstCaseAccuracy",
]
