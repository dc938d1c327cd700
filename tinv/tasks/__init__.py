"""What is trained: one LightningModule a task."""

from tinv.tasks.classification import Classification

__all__ = ["Classification"]
