"""Damaged MNIST archives and CIFAR pickles: one line that names the file; no pickle that is not official is opened."""

import gzip
import os
import pickle
from pathlib import Path

from boundary import Input, judge, numbers, seeded
from official_formats import write_cifar_pickles, write_mnist

from tinv.data import CIFAR10

MODEL, DATA = "--model.init_args.", "--data.init_args."
COMMON = [
    *(f"{MODEL}metrics=[]", "--trainer.callbacks=null", "--trainer.precision=32-true", f"{DATA}root=data"),
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
]
MNIST_RUN = ["fit", "--config=configs/mnist_grid.yaml", f"{DATA}num_val=10", *COMMON]
CIFAR_RUN = ["fit", "--config=configs/cifar_grid.yaml", f"{DATA}num_val=4", f"{DATA}num_train=16", *COMMON]


def damage(path: Path, random) -> str:
    """Damages a file of any kind; returns how."""
    content = bytearray(path.read_bytes())
    at = random.randrange(len(content) // 4, len(content))
    kinds = {
        "empty": lambda: path.write_bytes(b""),
        "cut": lambda: path.write_bytes(content[:at]),
        "noise": lambda: path.write_bytes(content[:at] + random.randbytes(100) + content[at + 100 :]),
        "zeros": lambda: path.write_bytes(bytes(len(content))),
        "longer": lambda: path.write_bytes(content + b"tail"),
        "text": lambda: path.write_text("404"),
        "folder": lambda: (path.unlink(), path.mkdir()),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "loop": lambda: (path.unlink(), path.symlink_to(path)),
        "missing": path.unlink,
    }
    kind = random.choice(sorted(kinds))
    kinds[kind]()
    return kind


def damage_archive(path: Path, random) -> str:
    """Makes an archive that unpacks, but not to what belongs there; returns how."""
    content = gzip.decompress(path.read_bytes())
    kinds = {
        "a byte less": content[:-1],
        "a byte more": content + b"\0",
        "bomb": content + bytes(300 * 2**20),
        "huge sizes": content[:4] + b"\x7f\xff\xff\xff" + content[8:],
        "other magic": b"\0\0\x0d" + content[3:],
        "packed twice": gzip.compress(content),
        "header alone": content[:8],
    }
    kind = random.choice(sorted(kinds))
    path.write_bytes(gzip.compress(kinds[kind], 1))
    return kind


@numbers(8, 150)
def test_a_damaged_archive_of_mnist_is_one_line(number, capfd):
    random = seeded("archives", number)
    folder = write_mnist(Path("data"))
    for plain in sorted(folder.iterdir()):
        (folder / f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    path = random.choice(sorted(folder.iterdir()))
    if number % 8 == 7:
        # several members, a name and a comment are legal
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:]))
        judge(Input(MNIST_RUN, (), "taken", f"{path}: two members"), capfd)
        return
    how = (damage_archive if random.random() < 0.5 else damage)(path, random)
    names = (path.name, path.name.removesuffix(".gz"))  # of one that is missing the plain name is given
    judge(Input(MNIST_RUN, names, "refused", f"{path}: {how}"), capfd)


class Code:
    """What would leave a file if it was unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("was run"),)


@numbers(7, 150)
def test_a_damaged_pickle_of_cifar_is_one_line_and_never_run(number, capfd, monkeypatch):
    random = seeded("pickles", number)
    folder, checksums = write_cifar_pickles(Path("data"))
    monkeypatch.setattr(CIFAR10, "checksums", lambda self: checksums)
    path = random.choice(sorted(folder.iterdir()))
    if number % 7 == 6:
        (folder / "readme.html").write_text("")  # in the official archive too
        judge(Input(CIFAR_RUN, (), "taken", "a file more"), capfd)
        return
    how = "code"
    if random.random() < 0.3:
        path.write_bytes(pickle.dumps(Code()))
    else:
        how = damage(path, random)
    judge(Input(CIFAR_RUN, (path.name,), "refused", f"{path}: {how}"), capfd)
    assert not Path("was run").exists()
