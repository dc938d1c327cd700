"""What is trained: one LightningModule a task."""

from tinv.tasks.classification import Classification
from tinv.tasks.descriptors import Descriptors

__all__ = ["Classification", "Descriptors"]
