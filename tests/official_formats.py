"""Tiny data sets in the files' real formats: random pixels, a bright square that tells the class."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(count: int, side: int, classes: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (count, channels, side, side) and labels; class c is brightest in the c-th diagonal cell."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    images = rng.integers(0, 60, (count, channels, side, side))
    for image, label in zip(images, labels, strict=True):
        at = 2 + (side - 6) * (label % 10) // 10
        image[:, at : at + 4, at : at + 4] = 250
    return images.astype(np.uint8), labels.astype(np.uint8)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.tobytes())


def write_mnist(root: Path, name: str = "MNIST", train: int = 60, test: int = 20) -> Path:
    """Writes ROOT/NAME/raw as torchvision does; returns that folder."""
    folder = root / name / "raw"
    for part, count in (("train", train), ("t10k", test)):
        images, labels = pixels(count, 28, 10, 1)
        write_idx(folder / f"{part}-images-idx3-ubyte", images[:, 0])
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return folder


def write_cifar_binary(root: Path, count: int = 20, classes: int = 10) -> Path:
    """Writes cifar-10-batches-bin or, for 100 classes, cifar-100-binary; returns the folder."""
    folder = root / ("cifar-10-batches-bin" if classes == 10 else "cifar-100-binary")
    folder.mkdir(parents=True)
    names = ["train", "test"] if classes == 100 else [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    for name in names:
        images, labels = pixels(count, 32, classes, 3)
        columns = [labels[:, None], images.reshape(count, -1)]
        if classes == 100:
            columns.insert(0, np.full((count, 1), 7, dtype=np.uint8))  # the coarse class
        (folder / f"{name}.bin").write_bytes(np.concatenate(columns, axis=1).tobytes())
    return folder


def write_cifar_pickles(root: Path, count: int = 20) -> tuple[Path, dict[str, str]]:
    """Writes cifar-10-batches-py; returns the folder and the checksums of its files."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    checksums = {}
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        images, labels = pixels(count, 32, 10, 3)
        raw = pickle.dumps({"data": images.reshape(count, -1), "labels": labels.tolist()})
        (folder / name).write_bytes(raw)
        checksums[name] = hashlib.md5(raw).hexdigest()
    return folder, checksums


def write_image_folders(root: Path, classes: int = 3, train: int = 2, val: int = 2, side: int = 48) -> list[str]:
    """Writes ROOT/train and ROOT/val as ImageNet's, a folder a class with JPEG files; returns the classes' names."""
    names = [f"n{number:08d}" for number in range(classes)]
    for part, each in (("train", train), ("val", val)):
        images, labels = pixels(classes * each, side, classes, 3)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / part / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            # wider than high, and not all of one size
            wide = np.repeat(image.transpose(1, 2, 0), 2, axis=1)[:, : side + 5 + number % 7]
            Image.fromarray(wide).save(folder / f"{part}_{number:04d}.JPEG")
    return names


def write_brown(folder: Path, points: int = 60, each: int = 5, pairs: int = 40) -> np.ndarray:
    """Writes one set of patches as Brown's: sheets of 16x16 patches of 64x64 pixels; returns the patches."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(points)
    shown = np.repeat(np.arange(points) * 7 + 3, each)  # numbers of points have gaps
    motives = np.kron(rng.integers(0, 200, (points, 8, 8)), np.ones((8, 8)))
    patches = (np.repeat(motives, each, axis=0) + rng.integers(0, 50, (points * each, 64, 64))).astype(np.uint8)
    for number in range(-(-len(patches) // 256)):
        sheet = Image.new("L", (1024, 1024))
        for place, patch in enumerate(patches[256 * number : 256 * (number + 1)]):
            sheet.paste(Image.fromarray(patch), (64 * (place % 16), 64 * (place // 16)))
        sheet.save(folder / f"patches{number:04d}.bmp")
    (folder / "info.txt").write_text("".join(f"{point} 0\n" for point in shown))
    lines = []
    for number in range(pairs):
        first = number % points * each
        second = first + 1 if number % 2 == 0 else (first + each) % len(patches)
        lines.append(f"{first} {shown[first]} 0 {second} {shown[second]} 0 \n")
    (folder / f"m50_{pairs}_{pairs}_0.txt").write_text("".join(lines))
    return patches


def write_photographs(folder: Path, count: int = 4, side: int = 200) -> None:
    """Writes a flat folder of photographs: textures of many scales, with corners and blobs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        image = np.full((side, side + 40), 0.5)
        for cells, contrast in ((5, 0.8), (12, 0.8), (25, 0.6)):
            rough = Image.fromarray((rng.random((cells, cells)).astype(np.float32) - 0.5) * contrast)
            image += np.asarray(rough.resize((side + 40, side), Image.Resampling.BICUBIC))
        Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)).save(folder / f"{number}.jpg")


def write_video(path: Path, frames: int = 20, side: int = 40, **options: object) -> np.ndarray:
    """Writes a video of smooth colours that change from frame to frame; returns what was encoded (T, H, W, 3)."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(frames)
    corners = rng.integers(0, 256, (frames, 2, 3, 3)).astype(np.uint8)
    pixels = [np.asarray(Image.fromarray(c).resize((side + 16, side), Image.Resampling.BILINEAR)) for c in corners]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = side + 16, side, "yuv420p"
        stream.options = {key: str(value) for key, value in {"g": 6, "bf": 0, **options}.items()}
        stream.codec_context.thread_count = 1
        for image in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return np.stack(pixels)


def write_ucf101(root: Path, classes: tuple[str, ...] = ("Archery", "Punch"), train: int = 3, test: int = 2) -> Path:
    """Writes ROOT/ucf101/UCF-101 with videos of some classes and the lists beside it; returns the folder of videos."""
    folder, lists = root / "ucf101" / "UCF-101", root / "ucf101" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(classes, start=1)))
    for part, count in (("train", train), ("test", test)):
        lines = []
        for number, name in enumerate(classes, start=1):
            for video in range(count):
                file = f"{name}/v_{name}_{part}_{video}.avi"
                write_video(folder / file, frames=18 + 5 * video + number)
                lines.append(f"{file} {number}\n" if part == "train" else f"{file}\n")
        (lists / f"{part}list01.txt").write_text("".join(lines))
    return folder


def write_hmdb51(root: Path) -> Path:
    """Writes ROOT/hmdb51/hmdb51_org with four videos and the lists beside it; returns the folder of videos."""
    folder, lists = root / "hmdb51" / "hmdb51_org", root / "hmdb51" / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for name in ("cartwheel", "wave"):
        lines = []
        for number, part in enumerate((1, 2, 0)):
            write_video(folder / name / f"{name}_{number}.avi", frames=10 + number)
            lines.append(f"{name}_{number}.avi {part} \n")
        (lists / f"{name}_test_split1.txt").write_text("".join(lines))
    return folder
