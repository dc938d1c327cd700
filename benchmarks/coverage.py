"""Which networks of timm take which policies: the smallest network of every module of timm, six policies each.

Each network is built with random weights, converted at its own input size, and run on one image. A network runs in a
process of its own; a pair of network and policy that takes longer than `--limit` seconds is stopped and counted as not
converted. Rows that the file has already are kept, so that a stopped run can be resumed. The page "Coverage of timm"
is made of the file.
Claims: every converted network is finite and keeps the names of its parameters; every refusal is one line that names a
layer. Run: python benchmarks/coverage.py
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import re
import sys
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from tinv import ConversionPolicy, convert
from tinv.errors import TinvError
from tinv.utils.io import write_atomically

FILE = Path(__file__).parents[1] / "docs" / "experiments" / "data" / "coverage.csv"
COLUMNS = ("network", "family", "class", "policy", "result", "changed", "reason", "seconds")
RUN_FLOPS = 50e9
"""Operations from which on a converted network is not run, as a pass takes minutes on one core."""
WITHOUT_VALUES = ("deepseek_vit_412m", "gemma4_vit_167m_enc")
"""Networks that are converted on the meta device and not run, as their weights alone take a gigabyte."""
POLICIES = {
    "full_zero": ConversionPolicy("full_zero", pool="full"),
    "same_circular": ConversionPolicy("same_circular"),
    "same_circular+aps": ConversionPolicy("same_circular", "aps"),
    "blur3": ConversionPolicy("keep", "blur3"),
    "full_background+aps": ConversionPolicy("full_background", "aps", pool="full"),
    "valid": ConversionPolicy("valid"),
}
FAMILIES = {
    "convolutional": """
byobnet:mobileone_s1 convmixer:convmixer_768_32 convnext:convnext_zepto_rms cspnet:cs3darknet_focus_s
cspnext:cspnext_tiny densenet:densenet121 dla:dla46x_c dpn:dpn48b efficientnet:mobilenetv2_035 fasternet:fasternet_t0
ghostnet:ghostnet_050 hardcorenas:hardcorenas_b hgnet:hgnetv2_b0 hrnet:hrnet_w18_small
inception_next:inception_next_atto inception_resnet_v2:inception_resnet_v2 inception_v3:inception_v3
inception_v4:inception_v4 lcnetv2:lcnetv2_small mambaout:mambaout_femto mobilenetv3:lcnet_035 nasnet:nasnetalarge
nfnet:nf_regnet_b0 pnasnet:pnasnet5large rdnet:rdnet_tiny regnet:regnetx_002 repghost:repghostnet_050 repvit:repvit_m1
res2net:res2next50 resnest:resnest14d resnet:resnet10t resnetv2:resnetv2_18 rexnet:rexnet_100 selecsls:selecsls42
senet:legacy_seresnet18 sknet:skresnet18 starnet:starnet_s050 tresnet:tresnet_m vgg:vgg11 vovnet:ese_vovnet19b_slim_dw
xception:legacy_xception xception_aligned:xception41p
""",
    "hybrid": """
byoanet:haloregnetz_b coat:coat_tiny cpubone:cpubone_nano csatv2:csatv2 davit:davit_tiny edgenext:edgenext_xx_small
efficientformer:efficientformer_l1 efficientformer_v2:efficientformerv2_s0 efficientvim:efficientvim_m1
efficientvit_mit:efficientvit_b0 efficientvit_msra:efficientvit_m0 fastvit:fastvit_t8 focalnet:focalnet_tiny_srf
gcvit:gcvit_xxtiny iformer:iformer_t levit:levit_128s lowformer:lowformer_b0 maxxvit:coatnet_pico_rw_224
metaformer:poolformerv2_s12 mobilenetv5:mobilenetv5_base mobilevit:mobilevit_xxs mvitv2:mvitv2_tiny
nextvit:nextvit_small pvt_v2:pvt_v2_b0 shvit:shvit_s1 swiftformer:swiftformer_xs tiny_vit:tiny_vit_5m_224
twins:twins_svt_small visformer:visformer_tiny vision_transformer_hybrid:vit_tiny_r_s16_p8_224
vitamin:vitamin_small_224 xcit:xcit_nano_12_p8_224
""",
    "attention and MLP": """
beit:beit_base_patch16_224 cait:cait_xxs24_224 convit:convit_tiny crossvit:crossvit_tiny_240
deepseek_vit:deepseek_vit_412m deit:deit_tiny_patch16_224 eva:eva02_tiny_patch14_224 gemma4_vit:gemma4_vit_167m_enc
hiera:hiera_tiny_224 hieradet_sam2:sam2_hiera_tiny mlp_mixer:gmlp_ti16_224 naflexvit:naflexvit_base_patch16_parfac_gap
nest:nest_tiny pit:pit_ti_224 qwen3_vit:qwen3_vit_88m sequencer:sequencer2d_s
swin_transformer:swin_tiny_patch4_window7_224 swin_transformer_v2:swinv2_base_window12_192
swin_transformer_v2_cr:swinv2_cr_tiny_224 tnt:tnt_s_legacy_patch16_224 vision_transformer:vit_tiny_patch16_224
vision_transformer_relpos:vit_srelpos_small_patch16_224 vision_transformer_sam:samvit_base_patch16_224
volo:volo_d1_224
""",
}
"""Modules of timm, each with its network of fewest parameters, among those that take 224 pixels or less where there is
one; networks named `test_` are left out. Hybrid are those whose blocks hold both windows larger than their stride and
attention, or another product over all positions; attention and MLP those whose only windows are patches, a stem or
steps between stages."""


def networks() -> dict[str, tuple[str, str]]:
    """Returns the family and the class of every network that is tried."""
    found = {}
    for kind, text in FAMILIES.items():
        for line in text.split():
            family, _, name = line.partition(":")
            found[name] = (family, kind)
    return found


def one_row(plain: nn.Module, policy: ConversionPolicy) -> dict[str, object]:
    """Returns what a policy does to a network: `result`, `changed`, `reason` and `seconds`."""
    images = torch.randn(1, *(plain.pretrained_cfg.get("input_size") or (3, 224, 224)))
    started = time.perf_counter()
    try:
        return _tried(plain, policy, images) | {"seconds": f"{time.perf_counter() - started:.1f}"}
    except TinvError as error:
        found = {"result": "refused", "reason": str(error)}
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        found = {"result": "error", "reason": f"{type(error).__name__}: {said}"}
    return found | {"seconds": f"{time.perf_counter() - started:.1f}"}


def _tried(plain: nn.Module, policy: ConversionPolicy, images: Tensor) -> dict[str, object]:
    try:
        network = convert(plain, policy=policy, example_input=images)
    except TinvError as error:
        least = re.search(r"the least input that works is (\d+)x(\d+)", str(error))
        if least is None:
            raise
        images = torch.randn(1, images.shape[1], int(least[1]), int(least[2]))
        network = convert(plain, policy=policy, example_input=images)
    counts = network.conversion.counts
    changed = "; ".join(f"{count} {what}" for what, count in counts.items())
    own = [name for name, _ in network.named_parameters() if not name.startswith("policy_layers.")]
    if own != [name for name, _ in plain.named_parameters()]:
        return {"result": "wrong", "changed": changed, "reason": "names of parameters are not the old ones"}
    size = "x".join(str(pixels) for pixels in images.shape[2:])
    if network.conversion.after.flops > RUN_FLOPS or next(network.parameters()).is_meta:
        billions = network.conversion.after.flops / 1e9
        reason = f"at {size}, not run: {billions:.0f} GFLOPs"
        return {"result": "converts", "changed": changed or "nothing", "reason": reason}
    with torch.no_grad():
        output = network(images)
    if not output.isfinite().all():
        return {"result": "wrong", "changed": changed, "reason": "the output is not finite"}
    return {"result": "converts", "changed": changed or "nothing", "reason": f"at {size}"}


def _work(name: str, words: list[str], results: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    with torch.device("meta" if name in WITHOUT_VALUES else "cpu"):
        plain = timm.create_model(name, num_classes=10).eval()
    for word in words:
        results.send(one_row(plain, POLICIES[word]))


def rows_of(name: str, words: list[str], limit: float) -> Iterator[dict[str, object]]:
    """Yields what each policy does to a network, from a process that a pair beyond the limit is stopped with."""
    # the process has torch and timm already
    context = multiprocessing.get_context("fork")
    while words:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(name, words, theirs))
        process.start()
        theirs.close()
        try:
            while words:
                if not ours.poll(limit):
                    yield {"result": "stopped", "reason": f"took more than {limit:.0f} s", "seconds": f"{limit:.0f}"}
                    words = words[1:]
                    break
                try:
                    row = ours.recv()
                except EOFError:
                    row = {"result": "error", "reason": "the process ended; it may have run out of memory"}
                yield row
                words = words[1:]
                if "seconds" not in row:
                    break
        finally:
            process.kill()
            process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="of the table in this file; all by default")
    parser.add_argument("--out", type=Path, default=FILE, help="CSV file; its rows are kept")
    parser.add_argument("--limit", type=float, default=120, help="seconds for each pair of network and policy")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = networks()
    if unknown := [name for name in args.networks if name not in known]:
        parser.error(f"not in the table: {', '.join(unknown)}")
    rows: list[dict[str, object]] = []
    if args.out.exists():
        with args.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["network"], row["policy"]) for row in rows}
    names = args.networks or list(known)
    started = time.monotonic()
    for number, name in enumerate(names, start=1):
        words = [word for word in POLICIES if (name, word) not in done]
        family, kind = known[name]
        for word, found in zip(list(words), rows_of(name, words, args.limit), strict=True):
            rows.append({"network": name, "family": family, "class": kind, "policy": word, **found})
            print(f"  {name} {word}: {found['result']} {found.get('reason', '')}", flush=True)
        _write(args.out, rows)
        left = (time.monotonic() - started) / number * (len(names) - number)
        print(f"[{number}/{len(names)}, {left / 60:.0f} min left] {name}", flush=True)
    failed = [row for row in rows if row["result"] in ("wrong", "error")]
    print(f"{'FAILS' if failed else 'holds'}: every pair converts to a sound network or is refused by name")
    return 1 if failed else 0


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes all rows under a temporary name and renames the file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


if __name__ == "__main__":
    sys.exit(main())
