import os
import socket

import pytest

from tinv.errors import TinvError
from tinv.utils.io import open_regular, read_bytes, read_text, regular


def test_regular_files_and_links_to_them_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "link").symlink_to("a")
    assert regular(tmp_path / "link") == tmp_path / "link"
    assert read_bytes(tmp_path / "link").startswith(b"\xef\xbb\xbf")
    assert read_text(tmp_path / "a").splitlines() == ["one", "two"]
    with open_regular(tmp_path / "a") as file:
        assert file.read(3) == b"\xef\xbb\xbf"


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
    for name, words in (
        ("pipe", "is a named pipe, not a regular file"),
        ("link", "is a named pipe, not a regular file"),
        ("socket", "is a socket, not a regular file"),
        (".", "is a folder, not a regular file"),
        ("/dev/zero", "is a device, not a regular file"),
        ("absent", "there is no file"),
        ("loop", "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        for read in (regular, open_regular, read_bytes, read_text):
            with pytest.raises(TinvError, match=words):
                read(tmp_path / name)


def test_text_of_another_encoding_is_refused_with_its_line(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"tea\ncaf\xe9\n")
    with pytest.raises(TinvError, match=r"list, line 2: not text in UTF-8"):
        read_text(path)
    assert os.fsencode(read_text(path, "surrogateescape")) == b"tea\ncaf\xe9\n"
    path.write_bytes("tea\n".encode("utf-16"))
    for errors in ("strict", "surrogateescape"):
        with pytest.raises(TinvError, match="line 1: not text in UTF-8"):
            read_text(path, errors)
