import os
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from official_formats import write_video
from PIL import Image

from tinv.data.formats import videos as video_format
from tinv.data.formats.images import ImageFiles, image_files
from tinv.data.formats.videos import index_videos, read_frames, scan
from tinv.errors import TinvError

av = pytest.importorskip("av", reason="needs PyAV")


def decoded(path: Path) -> np.ndarray:
    """All frames, decoded from the beginning."""
    with av.open(str(path), metadata_errors="replace") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])])


def videos(folder: Path, *names: str) -> ImageFiles:
    return image_files(folder, names, [0] * len(names), ("only",))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("short_gop.avi", {"g": 6}),
        ("one_key.avi", {"g": 600}),
        ("b_frames.avi", {"g": 12, "bf": 2}),
        ("open_gop.mp4", {"g": 8, "bf": 2}),
        ("plain.mkv", {"g": 5}),
    ],
)
def test_any_frames_are_those_of_decoding_everything(tmp_path, name, options):
    write_video(tmp_path / name, frames=40, **options)
    whole = decoded(tmp_path / name)
    times, keys = scan(tmp_path / name)
    assert len(times) == len(keys) == len(whole)
    for begin in range(0, len(whole) - 3, 3):
        for numbers in (range(begin, begin + 3), [begin, begin + 2]):
            assert np.array_equal(read_frames(tmp_path / name, list(numbers), times, keys), whole[list(numbers)])


def test_decoding_begins_at_the_last_key_frame(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", frames=40, g=6)
    times, keys = scan(tmp_path / "a.avi")
    begins = []
    decode = video_format._decode
    monkeypatch.setattr(video_format, "_decode", lambda *args: begins.append(args[4]) or decode(*args))
    read_frames(tmp_path / "a.avi", [20, 21], times, keys)
    assert begins == [max(number for number in range(21) if keys[number])]
    assert begins[0] > 0


def test_time_stamps_that_lead_elsewhere_are_not_trusted(tmp_path):
    write_video(tmp_path / "a.avi", frames=40, g=6)
    times, keys = scan(tmp_path / "a.avi")
    whole = decoded(tmp_path / "a.avi")
    for wrong in (times[::-1].copy(), times + 100, np.zeros_like(times), np.full_like(times, -1)):
        assert np.array_equal(read_frames(tmp_path / "a.avi", [25, 26], wrong, keys), whole[25:27])


def test_a_variable_frame_rate_changes_no_number_of_a_frame(tmp_path):
    path = tmp_path / "variable.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 48, 32, "yuv420p", {"g": "4"}
        at = 0
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 10 * number, dtype=np.uint8), format="rgb24")
            frame.pts = at
            at += 1 + number % 3
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    times, keys = scan(path)
    assert len(times) == 24
    assert len(set(np.diff(times))) > 1
    whole = decoded(path)
    for begin in (0, 5, 9, 20):
        assert np.array_equal(read_frames(path, [begin, begin + 1], times, keys), whole[begin : begin + 2])


def test_a_folder_of_frames_is_a_video(tmp_path):
    folder = tmp_path / "v_Archery"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 30, 3), dtype=np.uint8)
    for number, image in enumerate(pixels, start=1):
        Image.fromarray(image).save(folder / f"image_{number:05d}.png")
    times, keys = scan(folder)
    assert len(times) == 12
    assert np.array_equal(read_frames(folder, [3, 4, 9], times, keys), pixels[[3, 4, 9]])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not a video")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path: Path) -> None:
    path.unlink()


def no_frames(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (empty, r"bad\.avi cannot be read as a video \(Invalid data"),
        (text, r"bad\.avi cannot be read as a video \(Invalid data"),
        (truncated, r"bad\.avi is cut short: its header names 40 frames, \d+ are there"),
        (no_frames, r"bad\.avi holds no frames"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damaged_videos_are_named_and_kept_in_mind(tmp_path, fault, message):
    write_video(tmp_path / "good.avi", frames=10)
    write_video(tmp_path / "bad.avi", frames=40)
    fault(tmp_path / "bad.avi")
    with pytest.raises(TinvError, match=message):
        scan(tmp_path / "bad.avi")
    index = index_videos(videos(tmp_path, "good.avi", "bad.avi"), tmp_path / "caches")
    assert index.frames.tolist() == [10, 0]
    assert list(index.damaged) == [1]
    assert "bad.avi" in index.damaged[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_index_is_made_once_and_is_of_every_video(tmp_path, monkeypatch, workers):
    for number in range(3):
        write_video(tmp_path / f"{number}.avi", frames=8 + number)
    files = videos(tmp_path, "0.avi", "1.avi", "2.avi")
    index = index_videos(files, tmp_path / "caches", workers)
    assert index.frames.tolist() == [8, 9, 10]
    for number in range(3):
        for ours, theirs in zip(index.of(number), scan(files.path(number)), strict=True):
            assert ours.tolist() == theirs.tolist()
    monkeypatch.setattr(video_format, "scan", None)
    assert index_videos(files, tmp_path / "caches").frames.tolist() == [8, 9, 10]


def test_an_interrupted_index_is_made_anew(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", frames=8)

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(video_format, "scan", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index_videos(videos(tmp_path, "a.avi"), tmp_path / "caches")
    assert list((tmp_path / "caches").iterdir()) == []
    assert index_videos(videos(tmp_path, "a.avi"), tmp_path / "caches").frames.tolist() == [8]


def test_a_video_that_has_changed_since_is_named(tmp_path):
    write_video(tmp_path / "a.avi", frames=30)
    times, keys = scan(tmp_path / "a.avi")
    write_video(tmp_path / "b.avi", frames=8)
    shutil.move(tmp_path / "b.avi", tmp_path / "a.avi")
    with pytest.raises(TinvError, match=r"a\.avi ends before frame 21, it has changed since it was indexed"):
        read_frames(tmp_path / "a.avi", [20, 21], times, keys)


def test_without_pyav_one_line_says_what_to_install(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", frames=3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(TinvError, match=r"pip install 'tinv\[video\]'"):
        scan(tmp_path / "a.avi")


def test_without_pyav_videos_are_not_taken_for_damaged_once_it_is_there(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", frames=3)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "av", None)
        with pytest.raises(TinvError, match=r"pip install 'tinv\[video\]'"):
            index_videos(videos(tmp_path, "a.avi"), tmp_path / "caches")
    assert index_videos(videos(tmp_path, "a.avi"), tmp_path / "caches").frames.tolist() == [3]


def encode(path: str, frames, codec: str = "libx264", rate: int = 10, begin: int = 0, **options) -> Path:
    """Writes frames (T, H, W, 3)."""
    with av.open(path, "w", **options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = begin + number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def greys(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Returns frames (count, H, W, 3) that become brighter."""
    return np.stack([np.full((height, width, 3), 10 + 200 * n // count, np.uint8) for n in range(count)])


@pytest.mark.parametrize("name", ["{}.png", "img_{}.png", "frame-{:02d}.png", "shot 2 {}.png"])
def test_frames_of_a_folder_come_in_the_order_of_their_numbers(name):
    Path("video").mkdir()
    for number, pixels in enumerate(greys(120, 8, 8)):
        Image.fromarray(pixels).save(f"video/{name.format(number)}")
    assert (read_frames(Path("video"), range(120), *scan(Path("video"))) == greys(120, 8, 8)).all()


def test_a_change_of_size_is_damage():
    one, two = (encode(f"{size}.ts", greys(8, size), "mpeg2video", begin=begin) for size, begin in ((48, 0), (64, 8)))
    Path("both.ts").write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(TinvError, match=r"both.ts changes its size from 64x48 to 64x64 pixels at frame \d"):
        scan(Path("both.ts"))
    Path("video").mkdir()
    for number, size in enumerate((8, 8, 9)):
        Image.new("RGB", (size, 8)).save(f"video/{number}.png")
    with pytest.raises(TinvError, match="video changes its size from 8x8 to 9x8 pixels at frame 2"):
        scan(Path("video"))
    with pytest.raises(TinvError, match="video cannot be read as a folder of frames"):
        read_frames(Path("video"), range(3), np.full(3, -1), np.ones(3, np.bool_))


def test_a_video_that_cannot_be_sought_is_read_from_its_beginning():
    frames = greys(12)
    path = encode("raw.h264", frames)
    read = read_frames(path, [0, 5, 11], *scan(path))
    assert np.abs(read.astype(int) - frames[[0, 5, 11]]).max() <= 4


def test_frames_that_an_edit_list_hides_are_not_missed():
    with av.open("cut.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 4
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(greys(24)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = 100 * number - 450, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    times, keys = scan(Path("cut.mp4"))
    assert len(times) == 19
    assert len(read_frames(Path("cut.mp4"), range(19), times, keys)) == 19


def test_a_video_that_breaks_off_is_named_wherever_it_ends():
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    whole = encode("whole.mp4", noise, options={"movflags": "faststart"}).read_bytes()
    for length in [*range(0, 1200, 75), *range(1200, len(whole) - 8000, len(whole) // 5)]:
        Path("cut.mp4").write_bytes(whole[:length])
        with pytest.raises(TinvError, match=r"cut\.mp4"):
            scan(Path("cut.mp4"))


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
        ((-1, 0, 0, 1), np.fliplr),
    ],
)
def test_videos_are_read_upright(matrix, turned):
    def words(a: int, b: int, c: int, d: int) -> bytes:
        values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        return b"".join(value.to_bytes(4, "big", signed=True) for value in values)

    frames = greys(3)
    frames[:, :, :32] = 240
    frames[:, :16] = 120
    path = encode("phone.mp4", frames)
    plain = read_frames(path, range(3), *scan(path))
    data = path.read_bytes()
    track = data.index(words(1, 0, 0, 1), data.index(words(1, 0, 0, 1)) + 1)  # the first one is the whole film's
    path.write_bytes(data[:track] + words(*matrix) + data[track + 36 :])
    read = read_frames(path, range(3), *scan(path))
    assert (read == np.stack([turned(frame) for frame in plain])).all()


def test_a_pipe_is_no_video():
    os.mkfifo("pipe.avi")
    with pytest.raises(TinvError, match="is a named pipe, not a regular file"):
        scan(Path("pipe.avi"))
