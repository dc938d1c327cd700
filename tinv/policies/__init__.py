"""What is varied: how layers treat the border (padding), what carries their strides (subsampling), activations,
and the tokens of vision transformers.

Names below load when they are first used, so that the command line can answer without torch. Those of layers and of
the reading of networks are here for one minor version; their homes are `tinv.nn` and `tinv.graph`.
"""

from __future__ import annotations

from tinv.utils.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "tinv.policies.padding": ("PaddingPolicy",),
        "tinv.policies.subsampling": ("SubsamplingPolicy",),
        "tinv.policies.activation": ("ActivationPolicy",),
        "tinv.policies.tokens": ("TokenPolicy",),
        "tinv.policies.conversion": ("ConversionPolicy", "Settings"),
        "tinv.policies.cards": (
            *("ACTIVATIONS", "ACTIVATION_CARDS", "PADDINGS", "PADDING_CARDS", "SUBSAMPLINGS", "SUBSAMPLING_CARDS"),
            *("TOKENS", "TOKEN_CARDS"),
        ),
        "tinv.policies.deprecated": ("padding_amounts", "subsampler"),
        "tinv.graph.converted": ("ConvertedNetwork",),
        "tinv.graph.account": ("Conversion",),
        "tinv.graph.analysis": ("Analysis", "analyse"),
        "tinv.graph.exact_invariance": ("Verdict",),
        "tinv.nn.padding": ("PaddedConv1d", "PaddedConv2d", "PaddedConv3d", "fit", "pad"),
        "tinv.nn.pooling": ("Pool",),
        "tinv.nn.subsampling": ("AdaptivePolyphase", "BlurPool"),
    },
)


def __dir__() -> list[str]:
    return __all__
