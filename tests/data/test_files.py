"""MNIST and CIFAR from their official files: what is read, and what each kind of damage leads to."""

import gzip
import os

import numpy as np
import pytest
import torch
from official_formats import pixels, write_cifar_binary, write_cifar_pickles, write_idx, write_mnist

from tinv.data import CIFAR10, CIFAR100, MNIST, FashionMNIST
from tinv.errors import TinvError

SMALL = {"num_val": 10, "batch_size": 8}


def test_mnist_reads_idx_files(tmp_path):
    write_mnist(tmp_path)
    data = MNIST(str(tmp_path), **SMALL)
    data.setup()
    assert data.input_shape == (1, 40, 40)
    assert [len(s.target) for s in (data.splits.train, data.splits.val, data.splits.test["test"])] == [50, 10, 20]
    images, labels = pixels(20, 28, 10, 1)
    assert torch.equal(data.splits.test["test"].image[..., 0], torch.from_numpy(images[:, 0]))
    assert data.splits.test["test"].target.tolist() == labels.tolist()


def test_fashion_mnist_reads_its_own_folder_and_gz_files(tmp_path):
    folder = write_mnist(tmp_path, "FashionMNIST")
    for path in folder.iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    data = FashionMNIST(str(tmp_path), **SMALL)
    data.setup()
    assert len(data.splits.train.target) == 50


def test_the_root_is_taken_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path / "somewhere")
    monkeypatch.setenv("TINV_DATA", str(tmp_path / "somewhere"))
    MNIST(**SMALL).setup()
    monkeypatch.delenv("TINV_DATA")
    with pytest.raises(
        TinvError, match=r"looked for data/MNIST/raw/train-images-idx3-ubyte .*download=true.*TINV_DATA"
    ):
        MNIST(**SMALL).setup()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "truncated or damaged, 47055 bytes where 47056 belong"),
        (lambda raw: raw + b"\0", "truncated or damaged"),
        (lambda raw: raw[:8], "it holds a header alone"),
        (lambda raw: b"\0\0\x08\x01" + raw[4:], "magic number 2049 where an IDX file has 2051"),
        (lambda raw: b"", "magic number 0"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, damage, message):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TinvError, match=f"train-images-idx3-ubyte: .*{message}"):
        MNIST(str(tmp_path), **SMALL).setup()


def test_idx_files_that_are_pipes_or_damaged_archives_are_named(tmp_path):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[20:200] = bytes(180)
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(packed)
    with pytest.raises(TinvError, match=r"train-images-idx3-ubyte.gz: cannot be read"):
        MNIST(str(tmp_path), **SMALL).setup()
    os.mkfifo(path)
    with pytest.raises(TinvError, match="train-images-idx3-ubyte is a named pipe, not a regular file"):
        MNIST(str(tmp_path), **SMALL).setup()


def test_labels_out_of_range_and_unequal_counts_are_named(tmp_path):
    folder = write_mnist(tmp_path)
    labels = np.arange(60, dtype=np.uint8) % 10
    labels[7] = 10
    write_idx(folder / "train-labels-idx1-ubyte", labels)
    with pytest.raises(TinvError, match="train-labels-idx1-ubyte: label 10 of image 7 is not in 0"):
        MNIST(str(tmp_path), **SMALL).setup()
    write_idx(folder / "train-labels-idx1-ubyte", labels[:59])
    with pytest.raises(TinvError, match="holds 60 images, train-labels-idx1-ubyte 59 labels"):
        MNIST(str(tmp_path), **SMALL).setup()


def test_a_damaged_gz_file_is_named(tmp_path):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TinvError, match=r"train-images-idx3-ubyte\.gz: cannot be read"):
        MNIST(str(tmp_path), **SMALL).setup()


def test_cifar_reads_both_layouts_alike(tmp_path, monkeypatch):
    write_cifar_binary(tmp_path / "binary")
    _, checksums = write_cifar_pickles(tmp_path / "pickles")
    monkeypatch.setattr(CIFAR10, "checksums", lambda self: checksums)
    binary, pickles = (CIFAR10(str(tmp_path / kind), **SMALL) for kind in ("binary", "pickles"))
    binary.setup()
    pickles.setup()
    assert binary.input_shape == (3, 50, 50)
    for one, other in zip(binary.splits[:2], pickles.splits[:2], strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.target, other.target)
    images, _ = pixels(20, 32, 10, 3)
    test = binary.splits.test["test"]
    assert torch.equal(test.image.permute(0, 3, 1, 2), torch.from_numpy(images))


def test_cifar_100_takes_the_fine_classes(tmp_path):
    write_cifar_binary(tmp_path, 200, classes=100)
    data = CIFAR100(str(tmp_path), num_val=100)
    data.setup()
    assert sorted(set(data.splits.test["test"].target.tolist())) == list(range(100))


def test_a_pickle_with_another_checksum_is_never_unpickled(tmp_path, monkeypatch):
    folder, checksums = write_cifar_pickles(tmp_path)
    monkeypatch.setattr(CIFAR10, "checksums", lambda self: checksums)
    # what this pickle would do when loaded
    (folder / "data_batch_3").write_bytes(b'cbuiltins\nexec\n(S\'open("ran", "w")\'\ntR.')
    with pytest.raises(TinvError, match="data_batch_3: its checksum is not the official one, so it is not unpickled"):
        CIFAR10(str(tmp_path), **SMALL).setup()
    assert not (tmp_path / "ran").exists()


def test_official_checksums_are_known_for_every_file():
    for data in (CIFAR10(), CIFAR100()):
        names = {*data.train_files, *data.test_files}
        assert names <= data.checksums().keys()


def test_damaged_cifar_files_are_named(tmp_path):
    folder = write_cifar_binary(tmp_path)
    path = folder / "data_batch_2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(TinvError, match=r"data_batch_2\.bin: 61,455 bytes is not a whole number of 3,073-byte images"):
        CIFAR10(str(tmp_path), **SMALL).setup()
    path.write_bytes(b"\x0b" + whole[1:])
    with pytest.raises(TinvError, match=r"data_batch_2\.bin: label 11 of image 0 is not in 0\.\.9"):
        CIFAR10(str(tmp_path), **SMALL).setup()
    path.unlink()
    with pytest.raises(TinvError, match=r"no CIFAR10 data: looked for .*data_batch_2\.bin"):
        CIFAR10(str(tmp_path), **SMALL).setup()


def test_missing_cifar_names_both_places(tmp_path):
    with pytest.raises(
        TinvError, match=r"cifar-10-batches-bin or .*cifar-10-batches-py; pass --data.init_args.download"
    ):
        CIFAR10(str(tmp_path), **SMALL).setup()


def test_a_download_that_fails_says_so_in_one_line(tmp_path, monkeypatch):
    asked = []

    def fail(address, *args):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fail)
    message = r"^https?:.*train-images-idx3-ubyte.gz cannot be fetched \(no network\); fetch it .*raw and leave out"
    with pytest.raises(TinvError, match=message):
        MNIST(str(tmp_path), download=True, **SMALL).prepare_data()
    assert len(set(asked)) == len(asked) == 2  # both places that have it


def test_subsets_are_class_balanced(tmp_path):
    write_mnist(tmp_path, train=200, test=100)
    data = MNIST(str(tmp_path), num_val=20, num_train=30, num_test=40)
    data.setup()
    for images, each in ((data.splits.train, 3), (data.splits.val, 2), (data.splits.test["test"], 4)):
        assert torch.bincount(images.target).tolist() == [each] * 10
