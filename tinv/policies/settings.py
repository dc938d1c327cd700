"""Old home of `ConversionPolicy`, which was called `Settings`, for one minor version."""

from tinv.policies.conversion import Axes, BlurPadding, ConversionPolicy, PoolPolicy, Stem

__all__ = ["Axes", "BlurPadding", "PoolPolicy", "Settings", "Stem"]

Settings = ConversionPolicy
