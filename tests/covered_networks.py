"""Networks that are known to take every policy, for tests/surgery/test_coverage.py and for the site."""

TORCHVISION = """
resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 vgg11_bn mobilenet_v2 mobilenet_v3_small efficientnet_b0
regnet_y_400mf convnext_tiny googlenet squeezenet1_1 shufflenet_v2_x0_5 mnasnet0_5 r3d_18 r2plus1d_18
"""
TIMM = """
resnet18 resnet18d resnet50 seresnet18 resnext50_32x4d densenet121 convnext_atto efficientnet_b0 tf_efficientnet_b0
regnety_002 mobilenetv2_050 mobilenetv3_small_050 repvgg_a0 hgnetv2_b0 res2net50_14w_8s nf_resnet26 vgg11 ghostnet_050
"""
REFUSED = {
    "mobilevit_xxs": r"layer stages\.2\.1: its control flow depends on the size of its map",
    "hrnet_w18_small": r"layer stage2\.0\.",
    "vit_tiny_patch16_224": r"layer",
}
"""Networks of timm that cannot take `full_zero`, and how the message names the layer."""
