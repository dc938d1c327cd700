"""The names of all policies, and a short card for each: what it does, where it comes from, when it is exact, its cost.

Nothing here imports torch, so `tinv list` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

_Wrapped = Literal["same_circular", "same_circular_width"]
_Mirrored = Literal["same_reflect", "same_replicate", "same_symmetric"]
_Same = Literal["same_zero", _Wrapped, _Mirrored, "same_partial", "same_random", "same_background"]
Padding = Literal["keep", "valid", _Same, "full_zero", "full_circular", "full_background"]
_Blur = Literal["blur1", "blur2", "blur3", "blur4", "blur5", "blur6", "blur7"]
_APS = Literal["aps", "aps_blur3", "aps_blur5", "aps_l1", "aps_linf"]
_Frequency = Literal["ideal", "flc", "asap"]
_Learned = Literal["lps", "tips", "adaptive_blur"]
_Subsampling = Literal["keep", "dilated", _Blur, _APS, _Frequency, _Learned]
Subsampling = Literal[_Subsampling, "dense"]
"""A name of `tinv list subsampling`, or `dense`, the old name of `dilated`."""

Activation = Literal["keep", "up2", "poly2"]
Tokens = Literal["keep", "anchor", "a_token"]

PADDINGS: tuple[Padding, ...] = get_args(Padding)
SUBSAMPLINGS: tuple[_Subsampling, ...] = get_args(_Subsampling)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
TOKENS: tuple[Tokens, ...] = get_args(Tokens)


@dataclass(frozen=True)
class Card:
    """What a user must know of a policy before choosing it.

    Attributes:
        what: What it does to a layer with kernel size k, dilation d and stride s.
        source: The paper that uses it.
        exact: Shifts of the image for which the network's pooled output is exactly unchanged.
        cost: Compute against the network's usual padding or striding.
    """

    what: str
    source: str
    exact: str
    cost: str


KAYHAN = "Kayhan & van Gemert, CVPR 2020"
ZHANG = "Zhang, ICML 2019"
CHAMAN = "Chaman & Dokmanic, CVPR 2021"
ROJAS_GOMEZ = "Rojas-Gomez et al., NeurIPS 2022 (2210.08001)"
TOKENIZATION = "Rojas-Gomez et al., CVPR 2024 (2305.16316)"
DING = "Ding et al., 2023 (2306.07470)"
MICHAELI = "Michaeli et al., CVPR 2023 (2303.08085)"


def adaptive_card(blur: int, norm: int | str) -> Card:
    """Returns the card of adaptive polyphase sampling with a filter of `blur` pixels, 1 for none, and a norm."""
    filtered = "" if blur == 1 else f" and a {blur}x{blur} binomial filter,"
    strongest = {1: ", by the sum of magnitudes", "inf": ", by the largest magnitude"}.get(norm, "")
    exact = (
        "every circular shift, with same_circular and sizes divisible by the total stride; every shift on a zero "
        "canvas, with full_background and pool=full; both need stem=convert"
    )
    ties = (
        "multiples of the total stride, where aps is exact; shifts between them only where one pixel alone holds the "
        "largest magnitude, which max pools, clipped activations and flat areas rule out"
    )
    return Card(
        f"stride 1, then after the activation{filtered} the strongest of the s*s ways to take every s-th pixel"
        f"{strongest}",
        CHAMAN,
        ties if norm == "inf" else exact,
        "s*s times the strided layer",
    )


PADDING_CARDS: dict[Padding, Card] = {
    "keep": Card("leaves the network's own padding", "-", "as the network is", "none"),
    "valid": Card("no padding: border pixels meet fewer filter positions", KAYHAN, "never", "less than same"),
    "same_zero": Card("d(k-1)/2 zeros a side, the default of every library", KAYHAN, "never", "none"),
    "same_circular": Card(
        "d(k-1)/2 a side, wrapped around",
        KAYHAN,
        "circular shifts by multiples of the total stride",
        "one copy per layer",
    ),
    "same_circular_width": Card(
        "d(k-1)/2 a side, wrapped around along the width, zeros along the other axes: for panoramas, cylinders, globes",
        "-",
        "circular shifts along the width by multiples of the total stride, on widths divisible by it",
        "two copies per layer",
    ),
    "same_reflect": Card("d(k-1)/2 a side, mirrored without the edge pixel", "-", "never", "one copy per layer"),
    "same_replicate": Card("d(k-1)/2 a side, the edge pixel repeated", "-", "never", "one copy per layer"),
    "same_symmetric": Card(
        "d(k-1)/2 a side, mirrored with the edge pixel repeated", "pytorch issue 189236", "never", "one copy per layer"
    ),
    "same_partial": Card(
        "d(k-1)/2 zeros a side, and each sum times k^2 over the real pixels in its window, before the bias",
        "Liu et al., 2018 (1811.11718)",
        "never; published: ImageNet top-1 of ResNet-50 76.61 against 76.13 with zeros",
        "two products a value; plain convolutions only",
    ),
    "same_random": Card(
        "d(k-1) zeros in all, split at random between the two sides in each training step; in evaluation as same_zero",
        "arXiv 2302.08682",
        "never",
        "none; plain convolutions only",
    ),
    "same_background": Card(
        "d(k-1)/2 a side of the response of the layers before to a zero image",
        "tinv",
        "never; blank borders leave no edge",
        "one copy per layer",
    ),
    "full_zero": Card(
        "d(k-1) zeros a side: every filter value meets every pixel",
        KAYHAN,
        "shifts of content on a zero canvas by multiples of the total stride, without biases and norm shifts",
        "larger maps: 1.5x on these small nets, 3x on ResNets",
    ),
    "full_circular": Card(
        "d(k-1) a side, wrapped around: pixels at the seam count twice", "-", "never", "as full_zero"
    ),
    "full_background": Card(
        "d(k-1) a side of the response of the layers before to a zero image",
        "tinv",
        "shifts of content on a zero canvas by multiples of the total stride",
        "as full_zero and one copy per layer; in training the batch statistics once more",
    ),
}

SUBSAMPLING_CARDS: dict[Subsampling, Card] = {
    "keep": Card("leaves strides as they are", "-", "multiples of the total stride at best", "none"),
    "dilated": Card(
        "stride 1, and dilation in all later layers so that weights see the same distances",
        "-",
        "every shift, as far as the padding allows",
        "s*s times the later maps",
    ),
    **{
        cast(Subsampling, f"blur{size}"): Card(
            "stride 1, then after the activation "
            + ("plain sampling" if size == 1 else f"a {size}x{size} binomial filter")
            + " with the stride",
            ZHANG,
            "multiples of the total stride at best, less lost between them; under full_* padding the filter is padded "
            "fully too, which keeps full_background exact on a zero canvas",
            "s*s times the strided layer",
        )
        for size in range(1, 8)
    },
    "aps": adaptive_card(1, 2),
    "aps_blur3": adaptive_card(3, 2),
    "aps_blur5": adaptive_card(5, 2),
    "aps_l1": adaptive_card(1, 1),
    "aps_linf": adaptive_card(1, "inf"),
    "ideal": Card(
        "stride 1, then after the activation an ideal low-pass filter: of an axis of n pixels, m = ceil(n/s) are left, "
        "and the wavenumbers up to (m-1)//2, without the Nyquist frequency",
        MICHAELI,
        "multiples of the total stride, with same_circular and sizes divisible by it. The layer alone follows every "
        "shift, by parts of a pixel too, in the band-limited sense (checked: 2e-16). A network with ReLU behind it "
        "does not",
        "s*s times the strided layer, and n products a value and axis of n pixels",
    ),
    "flc": Card(
        "stride 1, then after the activation the quarter to the three quarters of the centred spectrum of each axis, "
        "inverted at that size; other strides than 2 crop to n/s in the same way",
        "Grabinski et al., ECCV 2022 (2204.00491)",
        "multiples of the total stride, with same_circular and maps divisible by 4 at every stride of 2. The layer "
        "alone follows no other shift either, since one side of the Nyquist frequency is kept (checked, relative "
        "error: 0.32 at a shift by 1 on 16 pixels, 0.07 at a shift by 2 on 15). On sizes such as 14, 2 more than a "
        "multiple of 4, the crop is off the centre and nothing is exact (checked: above 1)",
        "as ideal, with complex numbers",
    ),
    "asap": Card(
        "flc, with the spectrum of each axis times the root of a Hamming window before the crop",
        "Grabinski et al., 2023 (2307.09804)",
        "as flc: multiples of the total stride on maps divisible by 4 at every stride of 2, and nothing else (checked: "
        "0.27 at a shift by 1 on 16 pixels, 0.05 at a shift by 2 on 15, above 1 on 14)",
        "as flc",
    ),
    "lps": Card(
        "stride 1, then after the activation the one of the s*s ways to take every s-th pixel whose logit is largest, "
        "two circular convolutions and a mean that are learned; in training their sum, weighted by a Gumbel-softmax",
        ROJAS_GOMEZ,
        "in evaluation, trained or not, every circular shift, with same_circular and sizes divisible by the total "
        "stride; every shift on a zero canvas, with full_background and pool=full; both need stem=convert (checked on "
        "uniform noise, relative error of the layer: 0 at every shift on 16 pixels, 0.34 to 0.75 at odd shifts on 15, "
        "which is not divisible)",
        "s*s times the strided layer and one more convolution; its weights are new, under policy_layers",
    ),
    "tips": Card(
        "stride 1, then after the activation the s*s ways to take every s-th pixel, mixed for each channel by learned "
        "weights; two losses are added in training",
        "Saha & Gokhale, WACV 2025 (2404.07410)",
        "nothing: the weights come from averages over parts of the map, which change when content moves (checked "
        "on uniform noise of 16 pixels, relative error of the layer before training: 0.26 to 0.34 at odd shifts, 0.001 "
        "to 0.003 at multiples of the stride; up to 1.2 on noise whose mean is zero)",
        "s*s times the strided layer; its weights are new, under policy_layers",
    ),
    "adaptive_blur": Card(
        "stride 1, then after the activation a 3x3 filter of its own for each position and each of up to 8 groups of "
        "channels, with the stride",
        "Zou et al., BMVC 2020 (2008.09604)",
        "multiples of the total stride at best, as blur3: with same_circular and sizes divisible by it, or on a zero "
        "canvas with full_background and pool=full",
        "s*s times the strided layer and one more strided convolution; its weights are new, under policy_layers",
    ),
}

ACTIVATION_CARDS: dict[Activation, Card] = {
    "keep": Card("leaves the network's own activations", "-", "as the network is", "none"),
    "up2": Card(
        "upsamples the map to twice the pixels an axis by zeros in its spectrum, applies the network's own activation, "
        "and takes the map's own size again by an ideal low-pass filter without the Nyquist frequency; trained weights "
        "keep their meaning",
        MICHAELI,
        "circular shifts, as keep; nothing on a zero canvas, over which content spreads. Parts of a pixel are followed "
        "in part (checked on white noise of deviation 0.5, relative error of a shift by (0.3, 0.2) pixels: ReLU 0.40 "
        "-> 0.05, GELU 0.36 -> 0.005)",
        "4 times the activation on images, and 12 n products a value of a map of n x n pixels",
    ),
    "poly2": Card(
        "as up2, with 7 (a0 + a1 x/7 + a2 (x/7)^2) in the place of the network's own activation, a0, a1, a2 of each "
        "channel trained, from 0.01694, 0.5, 0.3078; a network has to be trained with it",
        MICHAELI,
        "circular shifts, as keep, and by parts of a pixel in the band-limited sense (checked: 6e-16). With "
        "same_circular, ideal, stem=convert, and norms of constants or of statistics over all positions, every "
        "circular shift of the image, by parts of a pixel too, leaves the pooled output unchanged (checked: below "
        "1e-12)",
        "as up2, and 3 numbers a channel of each activation",
    ),
}

TOKEN_CARDS: dict[Tokens, Card] = {
    "keep": Card("leaves patches and windows where they are", "-", "multiples of the total stride at best", "none"),
    "anchor": Card(
        "rolls each image so that the strongest of the p*p ways to take every p-th pixel, p the size of a patch, "
        "begins at the origin, and then so that its strongest patch lies there: the network sees the same numbers, to "
        "the last bit, whatever the circular shift",
        DING,
        "every circular shift, any network of patches, with absolute positions too, on sizes divisible by the patch; "
        "not where two norms are equal",
        "squares of the image, and one copy of it",
    ),
    "a_token": Card(
        "patches begin where they are strongest: in Swin by the norm of their tokens (A-token), in other networks by "
        "that of their first pixels (polyphase anchoring). In Swin and Swin V2, windows begin where tokens are "
        "strongest, without the mask of the border (A-WSA), patches are merged at the strongest of four phases "
        "(A-PMerge), and relative positions are those on a ring where one window covers an axis (A-RPE). In a ViT with "
        "relative positions they are those on a ring",
        f"{TOKENIZATION}; {DING}",
        "every circular shift, trained or not: Swin and Swin V2 on sizes divisible by patch x window x merges, and a "
        "ViT with relative positions, or with none, on sizes divisible by the patch; not where two energies are equal. "
        "Nothing with absolute positions",
        "in Swin p*p patch embeddings, and two copies of the map for each attention; in other networks as anchor",
    ),
}
