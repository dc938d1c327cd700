"""Networks: the papers' own in `backbones/`, and one factory for them and for every timm and torchvision network."""

from tinv.models.factory import backbone_options, create_backbone, list_backbones, under_policies
from tinv.models.sources import Source, own_backbones

__all__ = ["Source", "backbone_options", "create_backbone", "list_backbones", "own_backbones", "under_policies"]
