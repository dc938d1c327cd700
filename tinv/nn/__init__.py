"""Layers: convolutions and pools with any border, blurs, subsampling by any rule, activations without aliasing.

They know no policy and need none.
"""

from __future__ import annotations

from tinv.utils.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "tinv.nn.activation": ("BandLimitedActivation", "PolynomialActivation", "UpsampledActivation"),
        "tinv.nn.frequency": ("ASAPPooling", "FLCPooling", "IdealSubsampling"),
        "tinv.nn.learned_subsampling": ("AdaptiveBlurPool", "LearnedPolyphaseSampling", "TIPSPooling"),
        "tinv.nn.padding": ("PaddedConv1d", "PaddedConv2d", "PaddedConv3d", "pad"),
        "tinv.nn.pooling": ("Pool",),
        "tinv.nn.position_bias": ("CircularPositionBias",),
        "tinv.nn.subsampling": (
            "AdaptivePolyphase",
            "AdaptivePolyphaseSampling",
            "BlurPool",
            "PolyphaseSampling",
            "Subsampler",
        ),
        "tinv.nn.token_layers": ("AdaptivePatchEmbedding", "AdaptivePatchMerging", "TokenLayer"),
        "tinv.nn.tokens": ("PolyphaseAnchor", "roll_each"),
        "tinv.nn.unpooling": ("PolyphaseUnpooling",),
        "tinv.nn.window_attention": ("AdaptiveWindowAttention",),
    },
)
