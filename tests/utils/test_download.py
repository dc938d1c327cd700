import socket
import time

import pytest
import torch

from tinv.data import CIFAR10
from tinv.errors import TinvError
from tinv.models import create_backbone
from tinv.models.weights import build_with_weights
from tinv.utils import download
from tinv.utils.download import fetch


def fails(times, error):
    """A download that fails so many times, and a list that counts its calls."""
    calls = []

    def download():
        calls.append(socket.getdefaulttimeout())
        if len(calls) <= times:
            raise error
        return "content"

    return download, calls


def test_a_second_try_may_succeed_and_each_has_a_time_limit():
    download, calls = fails(1, TimeoutError("timed out"))
    assert fetch(download, "a file", "fetch it by hand") == "content"
    assert calls == [10.0, 10.0]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(("error", "tries"), [(OSError("no route\nmore"), 2), (RuntimeError("no route"), 1)])
def test_what_cannot_be_fetched_is_one_line(error, tries):
    download, calls = fails(9, error)
    with pytest.raises(TinvError, match=r"^a file cannot be fetched \(no route\); fetch it by hand$"):
        fetch(download, "a file", "fetch it by hand")
    assert len(calls) == tries
    assert socket.getdefaulttimeout() is None


def test_a_silent_server_ends_the_download(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(download, "LIMIT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes connections and says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}/cifar.tar.gz"
        monkeypatch.setattr(datasets.CIFAR10, "url", address)
        begun = time.monotonic()
        with pytest.raises(
            TinvError, match=rf"{address} cannot be fetched \(.*timed out.*\); fetch it by hand, unpack"
        ):
            CIFAR10(str(tmp_path), download=True, num_val=4).prepare_data()
    assert time.monotonic() - begun < 5


def test_a_second_try_draws_the_same_numbers():
    drawn = []

    def build():
        drawn.append(torch.rand(3))
        if len(drawn) == 1:
            raise OSError("no route")
        return torch.nn.Identity()

    build_with_weights("net", True, build)
    assert torch.equal(*drawn)


def test_a_hub_out_of_reach_is_one_line_at_once(monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    begun = time.monotonic()
    with pytest.raises(TinvError, match=f"the pretrained weights of timm's resnet18 .*{closed} is out of reach"):
        create_backbone("resnet18", "timm", num_classes=1000, pretrained=True, input_size=(32, 32))
    assert time.monotonic() - begun < 10
    assert not constants.HF_HUB_OFFLINE
