"""What a user names may be anything that a file system holds: it is read if it is a file, and only so much of it."""

import os
import socket
import time

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.files import read_text_bounded


def refusal(path, limit=100):
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        read_text_bounded(path, limit, "a run file")
    assert time.monotonic() - began < 5
    return str(caught.value).removeprefix(f"{path}")


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_not(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"x" * 100)
    assert read_text_bounded(file, 100) == "x" * 100
    file.write_bytes(b"x" * 101)
    assert refusal(file) == ": 101 bytes; at most 100 bytes are read"


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfa: 1")
    (tmp_path / "link").symlink_to("f")
    assert read_text_bounded(tmp_path / "link", 100) == "a: 1"


def test_nothing_but_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket") == ": is a socket; a run file is expected"
    assert refusal(tmp_path / "pipe") == ": is a named pipe; a run file is expected"
    assert refusal(tmp_path / "link") == ": is a named pipe; a run file is expected"
    assert refusal(tmp_path / "zero") == ": is a device; a run file is expected"
    assert refusal(tmp_path) == ": is a folder; a run file is expected"


def test_a_pipe_put_in_the_place_of_a_file_between_looking_and_opening(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / "file"
    file.touch()
    looked = os.stat(file)
    monkeypatch.setattr(os, "stat", lambda path: looked)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert "a named pipe" in refusal(tmp_path / "pipe")
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_names_that_lead_nowhere(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "demo.yaml").touch()
    assert refusal(tmp_path / "a") == ": cannot be read: its symbolic links lead round in a circle"
    assert refusal(tmp_path / "dmo.yaml") == ": no such file; did you mean 'demo.yaml'?"
    assert refusal(tmp_path / "demo.yaml" / "x") == ": cannot be read: Not a directory"
    assert refusal(tmp_path / ("n" * 300)) == ": cannot be read: File name too long"
    assert "not a file name" in refusal(tmp_path / "a\0b")


def test_text_in_another_encoding_is_named_with_its_line(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"a: 1\nb: \xe9\n")
    assert refusal(file) == ":2: not UTF-8 text; save the file as UTF-8"
    file.write_bytes("a: 1".encode("utf-16"))
    assert refusal(file) == ":1: not UTF-8 text; save the file as UTF-8"


def test_a_file_that_grows_after_its_size_was_looked_at(tmp_path, monkeypatch):
    file = tmp_path / "f"
    file.write_bytes(b"x" * 10)
    looked = os.stat(file)
    monkeypatch.setattr(os, "fstat", lambda descriptor: looked)
    file.write_bytes(b"x" * 10**6)
    assert refusal(file, 1000) == ": grows while it is read; at most 1000 bytes are read"
