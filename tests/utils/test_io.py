import os
import socket

import pytest

from tinv.errors import TinvError
from tinv.utils.io import read_bytes, read_csv, read_json, read_text, regular, write_atomically


def test_regular_files_and_links_to_them_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "link").symlink_to("a")
    assert regular(tmp_path / "link") == tmp_path / "link"
    assert read_bytes(tmp_path / "link").startswith(b"\xef\xbb\xbf")
    assert read_text(tmp_path / "a").splitlines() == ["one", "two"]


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
        for read in (regular, read_bytes, read_text, read_json, read_csv):
            with pytest.raises(TinvError, match=words):
                read(tmp_path / name)


def test_a_field_of_csv_may_hold_any_line_break(tmp_path):
    (tmp_path / "a.csv").write_bytes('a,b\r\n"x\ny",1\r\n"u\u2028v\x0c",2\r\n'.encode())
    assert read_csv(tmp_path / "a.csv") == [{"a": "x\ny", "b": "1"}, {"a": "u\u2028v\x0c", "b": "2"}]


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


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"a": 1} b', "9" * 5000])
def test_damaged_json_is_one_line(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(TinvError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_csv_is_read_by_column_and_refused_where_damaged(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffepoch,loss\r\n0,0.5\r\n1\r\n")
    assert read_csv(path) == [{"epoch": "0", "loss": "0.5"}, {"epoch": "1", "loss": None}]
    path.write_text("epoch\n" + "x" * 200_000)
    with pytest.raises(TinvError, match=r"a\.csv is damaged \(field larger"):
        read_csv(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
