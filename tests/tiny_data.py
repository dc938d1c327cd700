"""A tiny data set of every format, and a run of a second on each."""

from pathlib import Path

from official_formats import (
    write_brown,
    write_cifar_binary,
    write_image_folders,
    write_mnist,
    write_photographs,
    write_ucf101,
)

MODEL, DATA = "--model.init_args.", "--data.init_args."
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
RED_GREEN = [
    "--config=configs/red_green.yaml",
    *(f"{DATA}{key}=8" for key in ("num_train", "num_val", "num_test", "batch_size")),
]
BASES: dict[str, list[str]] = {
    "RedGreen": RED_GREEN,
    "Rook": ["--config=configs/rook.yaml"],
    "Digits": ["--config=configs/digits_grid.yaml", f"{MODEL}metrics=[]", "--trainer.callbacks=null"],
    "MNIST": [
        *("--config=configs/mnist_grid.yaml", f"{MODEL}metrics=[]", "--trainer.callbacks=null"),
        *(f"{DATA}root=data", f"{DATA}num_val=10", "--trainer.precision=32-true"),
    ],
    "CIFAR10": [
        *("--config=configs/cifar_grid.yaml", f"{MODEL}metrics=[]", "--trainer.callbacks=null"),
        *(f"{DATA}root=data", f"{DATA}num_val=4", f"{DATA}num_train=16", "--trainer.precision=32-true"),
    ],
    "MovingShapes": [
        *("--config=configs/moving_shapes.yaml", f"{MODEL}metrics=[]"),
        *(f"{DATA}{key}=4" for key in ("num_train", "num_val", "num_test", "batch_size")),
    ],
    "UCF101": [
        *("--config=configs/moving_shapes.yaml", f"{MODEL}metrics=[]", "--data=tinv.data.UCF101"),
        *(f"{DATA}root=data", f"{DATA}size=16", f"{DATA}num_frames=4", f"{DATA}batch_size=2"),
    ],
    "ImageNet": [
        *("--config=configs/imagenet_shift.yaml", f"{MODEL}metrics=[]", f"{DATA}root=data/imagenet"),
        *(f"{DATA}classes=null", f"{DATA}size=32", f"{DATA}test_resolution=40", f"{DATA}batch_size=2"),
        *(f"{DATA}num_workers=0", "--trainer.precision=32-true", f"{MODEL}backbone=rook_net"),
        f"{MODEL}backbone_args=null",
    ],
    "ImageFolder": [
        *("--config=configs/finetune.yaml", f"{MODEL}metrics=[]", f"{DATA}root=data/imagenet", f"{DATA}size=32"),
        *(f"{DATA}test_resolution=40", f"{DATA}batch_size=2", f"{DATA}num_workers=0", f"{MODEL}pretrained=false"),
        *(f"{MODEL}source=tinv", f"{MODEL}backbone=rook_net"),
    ],
    "FourQuadrant": [
        *("--config=configs/four_quadrant.yaml", f"{DATA}root=data/photographs", f"{DATA}num_images=3"),
        *(f"{MODEL}backbone=rook_net", f"{MODEL}frozen=false"),
    ],
    "PhotoPatches": [
        *("--config=configs/photo_patches.yaml", f"{MODEL}metrics=[]", f"{DATA}root=data/photographs"),
        *(f"{DATA}{key}=2" for key in ("num_images", "num_test_images")),
        *(f"{DATA}{key}=8" for key in ("num_pairs", "num_test_pairs", "batch_size", "num_points")),
        "--trainer.precision=32-true",
    ],
    "Brown": [
        *("--config=configs/brown.yaml", f"{MODEL}metrics=[]", f"{DATA}root=data/brown"),
        *(f"{DATA}{key}=8" for key in ("num_pairs", "batch_size")),
        f"{DATA}num_test_pairs=40",
    ],
}
"""A run of a second on each data set; one that is missing here is tried on the keys of its bases alone."""


def write_tiny_data(root: Path) -> Path:
    """Writes the files that the runs of `BASES` look for in a folder `data`; returns the folder."""
    write_mnist(root)
    write_cifar_binary(root)
    write_image_folders(root / "imagenet", classes=2, side=40)
    write_photographs(root / "photographs", count=8)
    for number, name in enumerate(("yosemite", "notredame", "liberty")):
        write_brown(root / "brown" / name, points=12 + number)
    write_ucf101(root)
    return root
