import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from official_formats import write_hmdb51, write_ucf101, write_video

from tinv.data import HMDB51, UCF101
from tinv.data.clip_batches import SCALES, crop, frames_of, resize_frames
from tinv.data.formats.videos import read_frames
from tinv.errors import TinvError

pytest.importorskip("av", reason="needs PyAV")


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_ucf101(tmp_path)


MADE: list[UCF101] = []


@pytest.fixture(autouse=True)
def ended_workers():
    yield
    for data in MADE:
        data.teardown("fit")
    MADE.clear()


def ucf101(folder: Path, **options) -> UCF101:
    small = {"num_frames": 8, "size": 24, "batch_size": 3, "seed": 0}
    MADE.append(UCF101(root=str(folder.parent.parent), **{**small, **options}))
    return MADE[-1]


def test_sets_are_those_of_the_official_lists(folder):
    data = ucf101(folder)
    data.setup()
    files, index, good = data.found["train"]
    assert [os.fsdecode(name) for name in files.names][:2] == [f"Archery/v_Archery_train_{n}.avi" for n in (0, 1)]
    assert files.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert index.frames.tolist() == [19, 24, 29, 20, 25, 30]
    assert good == list(range(6))
    assert data.provenance["train_videos"] == 6
    assert data.provenance["test_absent"] == 0


def test_hmdb51_takes_what_its_lists_mark_1_and_2(tmp_path):
    write_hmdb51(tmp_path)
    data = HMDB51(root=str(tmp_path), num_frames=8, size=24, batch_size=2, seed=0)
    data.setup()
    names = {name: [os.fsdecode(n) for n in files.names] for name, (files, _, _) in data.found.items()}
    assert names == {"train": ["cartwheel/cartwheel_0.avi", "wave/wave_0.avi"],
                     "test": ["cartwheel/cartwheel_1.avi", "wave/wave_1.avi"]}  # fmt: skip
    assert sum(len(batch.image) for batch in data.train_dataloader()) == 2


def test_test_clips_cover_each_video_and_do_not_overlap(folder):
    data = ucf101(folder)
    [loader] = data.test_dataloader()
    batches = list(loader)
    images = torch.cat([batch.image for batch in batches])
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(len(images)))
    videos = data.clip_to_video
    files, index, _ = data.found["test"]
    assert videos.tolist() == [v for v, n in enumerate(index.frames.tolist()) for _ in range(-(-n // 8))]
    at = 0
    for video, frames in enumerate(index.frames.tolist()):
        pixels = torch.from_numpy(read_frames(files.path(video), list(range(frames)), *index.of(video)))
        whole = resize_frames(crop(pixels, 1.0, 4), 24, 24)
        for begin in range(0, frames, 8):
            numbers = [begin + k % min(8, frames - begin) for k in range(8)]  # the last one is looped
            assert torch.equal(images[at], whole[numbers])
            at += 1
    assert at == len(images)
    assert torch.cat([batch.target for batch in batches]).tolist() == files.targets[videos].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_training_clips_are_consecutive_frames_cut_alike_and_new_each_epoch(folder, workers):
    data = ucf101(folder, num_workers=workers)
    epochs = []
    for epoch in (0, 1):
        data.trainer = SimpleNamespace(current_epoch=epoch, overfit_batches=0)
        batches = list(data.train_dataloader())
        index = torch.cat([batch.index for batch in batches])
        assert sorted(index.tolist()) == list(range(6))
        epochs.append(torch.cat([batch.image for batch in batches])[index.argsort()])
    assert epochs[0].shape == (6, 8, 24, 24, 3)
    assert not torch.equal(*epochs)
    files, frames, _ = data.found["train"]
    for number, clip in enumerate(epochs[0]):
        pixels = torch.from_numpy(
            read_frames(files.path(number), list(range(frames.frames[number])), *frames.of(number))
        )
        cuts = [
            cut[begin : begin + 8]
            for scale in SCALES
            for corner in range(5)
            for whole in (resize_frames(crop(pixels, scale, corner), 24, 24),)
            for cut in (whole, whole.flip(2))
            for begin in range(len(pixels) - 7)
        ]
        assert any(torch.equal(clip, cut) for cut in cuts)


def test_clips_do_not_depend_on_workers_or_batch_size(folder):
    def clips(**options) -> torch.Tensor:
        batches = list(ucf101(folder, **options).train_dataloader())
        return torch.cat([b.image for b in batches])[torch.cat([b.index for b in batches]).argsort()]

    first = clips()
    assert torch.equal(first, clips(batch_size=4, num_workers=1))
    assert not torch.equal(first, clips(seed=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_cached_clips_are_the_decoded_ones_and_nothing_is_decoded_again(folder, workers, monkeypatch):
    def clips(**options) -> list[torch.Tensor]:
        data = ucf101(folder, num_workers=workers, **options)
        return [batch.image for loader in (data.train_dataloader(), *data.test_dataloader()) for batch in loader]

    decoded, cached = clips(), clips(cache_resolution=40)  # as high as the videos: nothing is lost
    assert all(torch.equal(a, b) for a, b in zip(decoded, cached, strict=True))
    small = clips(cache_resolution=30)
    assert [clip.shape for clip in small] == [clip.shape for clip in decoded]
    assert (torch.cat(small).float() - torch.cat(decoded).float()).abs().mean() < 20
    monkeypatch.setattr("tinv.data.clip_batches.read_frames", None)
    assert all(torch.equal(a, b) for a, b in zip(small, clips(cache_resolution=30), strict=True))


def test_short_videos_are_looped(folder):
    data = ucf101(folder, num_frames=25, augment="none")
    data.setup()
    clip = next(iter(data.val_dataloader())).image[0]  # of 19 frames
    assert torch.equal(clip[19:], clip[:6])
    assert frames_of(3, 4, 20).tolist() == [3, 4, 5, 6]
    assert frames_of(18, 4, 20).tolist() == [18, 19, 18, 19]


def test_squares_lie_at_the_corners_and_in_the_middle():
    frames = torch.arange(2 * 10 * 14 * 3).remainder(251).byte().view(2, 10, 14, 3)
    expected = [(0, 0), (0, 9), (5, 0), (5, 9), (2, 4)]
    for corner, (top, left) in enumerate(expected):
        assert torch.equal(crop(frames, 0.5, corner), frames[:, top : top + 5, left : left + 5])
    assert [round(scale, 4) for scale in SCALES] == [1.0, 0.8409, 0.7071, 0.5946, 0.5]


def test_clips_reach_the_network_less_the_mean_and_in_0_to_255(folder):
    data = ucf101(folder)
    batch = next(iter(data.train_dataloader()))
    found = data.on_after_batch_transfer(batch, 0).image
    assert found.shape[1:] == data.input_shape == (3, 8, 24, 24)
    expected = batch.image[1, 2, 3, 4].float() - torch.tensor([114.7748, 107.7354, 99.4750])
    torch.testing.assert_close(found[1, :, 2, 3, 4], expected)


def test_a_damaged_video_is_named_or_skipped_and_counted(folder):
    bad = folder / "Punch/v_Punch_train_1.avi"
    bad.write_bytes(b"")
    with pytest.raises(TinvError, match=r"v_Punch_train_1\.avi cannot be read .* on_error: skip"):
        ucf101(folder).setup()
    data = ucf101(folder, on_error="skip")
    assert sum(len(batch.image) for batch in data.train_dataloader()) == 5
    assert data.provenance["skipped_files"] == [str(bad)]
    assert data.provenance["train_videos"] == 5


def test_an_absent_video_is_named_or_skipped_and_counted(folder):
    (folder / "Punch/v_Punch_test_0.avi").unlink()
    with pytest.raises(TinvError, match=r"1 of the 4 videos of the test list are not in .*v_Punch_test_0\.avi; get"):
        ucf101(folder).setup()
    data = ucf101(folder, absent="skip")
    data.setup()
    assert data.provenance["test_absent"] == 1


def test_a_folder_of_frames_stands_in_for_a_video(folder):
    from PIL import Image

    video = folder / "Punch/v_Punch_train_0.avi"
    frames = folder / "Punch/v_Punch_train_0"
    video.unlink()
    frames.mkdir()
    for number in range(12):
        Image.new("RGB", (50, 40), (number * 20, 0, 0)).save(frames / f"image_{number:05d}.jpg")
    data = ucf101(folder)
    data.setup()
    assert data.found["train"][1].frames.tolist()[3] == 12
    assert sum(len(batch.image) for batch in data.train_dataloader()) == 6


def duplicate(folder: Path) -> None:
    with (folder.parent / "ucfTrainTestlist/trainlist01.txt").open("a") as file:
        file.write("Punch/v_Punch_test_0.avi 2\n")


def twice(folder: Path) -> None:
    with (folder.parent / "ucfTrainTestlist/trainlist01.txt").open("a") as file:
        file.write("Punch/v_Punch_train_0.avi 2\n")


def strange_folder(folder: Path) -> None:
    (folder / "Juggling").mkdir()


def strange_class(folder: Path) -> None:
    with (folder.parent / "ucfTrainTestlist/testlist01.txt").open("a") as file:
        file.write("Juggling/v_Juggling_0.avi\n")


def no_list(folder: Path) -> None:
    (folder.parent / "ucfTrainTestlist/testlist01.txt").unlink()


def no_videos(folder: Path) -> None:
    for video in folder.rglob("*_test_*.avi"):
        video.unlink()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (duplicate, r"v_Punch_test_0\.avi is listed in the train and the test list"),
        (twice, r"v_Punch_train_0\.avi is listed twice in the train list"),
        (strange_folder, r"UCF-101/Juggling is a class that .*classInd\.txt does not name"),
        (strange_class, r"testlist01\.txt names Juggling/v_Juggling_0\.avi, a class that .*classInd\.txt does not"),
        (no_list, r"no split file .*testlist01\.txt"),
        (no_videos, r"holds none of the 4 videos of the test list"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_faults_of_the_split_are_one_line(folder, fault, message):
    fault(folder)
    with pytest.raises(TinvError, match=message):
        ucf101(folder, absent="skip").setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": 4}, "split must be 1, 2 or 3, not 4"),
        ({"num_frames": 0}, "num_frames must be 1 or more, not 0"),
        ({"absent": "ignore"}, "unknown absent 'ignore'; choose from raise, skip"),
        ({"cache_resolution": 20}, "cache_resolution=20 must be at least 24 pixels"),
        ({"split": 2}, r"no split file .*trainlist02\.txt"),
    ],
)
def test_bad_options_are_named(folder, options, message):
    with pytest.raises(TinvError, match=message):
        ucf101(folder, **options).setup()


def test_no_data_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(TinvError, match=r"no UCF101 data: .*ucf101/UCF-101 or .*UCF-101; get it, and name"):
        UCF101(root=str(tmp_path)).setup()


def test_hmdb51_lists_are_checked(tmp_path):
    folder = write_hmdb51(tmp_path)
    lists = folder.parent / "testTrainMulti_7030_splits"
    (folder / "juggle").mkdir()
    with pytest.raises(TinvError, match=r"hmdb51_org/juggle is a class without .*juggle_test_split1\.txt"):
        HMDB51(root=str(tmp_path)).setup()
    (folder / "juggle").rmdir()
    (lists / "wave_test_split1.txt").write_text("wave_0.avi 3\n")
    with pytest.raises(TinvError, match=r"wave_test_split1\.txt: 'wave_0\.avi 3' is no video and 0, 1 or 2"):
        HMDB51(root=str(tmp_path)).setup()


DIES = """
import os, signal, sys
from tinv.data import UCF101
from tinv.data.clip_batches import ClipDataset
from tinv.errors import TinvError

read = ClipDataset.read

def dies(self, number, draws):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, number, draws)

ClipDataset.read = dies
data = UCF101(root=sys.argv[1], num_frames=8, size=24, batch_size=3, num_workers=1, seed=0)
try:
    list(data.train_dataloader())
except TinvError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_a_worker_that_dies_says_which_file_it_held(folder):
    """In a process of its own: torch tells of a dead worker by a signal, which may reach any test that runs then."""
    root = str(folder.parent.parent)
    done = subprocess.run([sys.executable, "-c", DIES, root], capture_output=True, text=True, check=True)
    assert re.search(r"a process that reads files died; it was reading .*v_Punch_train_1\.avi", done.stdout), done


def test_frames_of_the_video_are_what_pyav_says(folder):
    import av

    write_video(folder / "Archery/v_Archery_train_0.avi", frames=33, bf=2)
    data = ucf101(folder)
    data.setup()
    with av.open(str(folder / "Archery/v_Archery_train_0.avi")) as container:
        assert data.found["train"][1].frames[0] == sum(1 for _ in container.decode(container.streams.video[0]))


@pytest.mark.parametrize(
    "text",
    ["1 Archery\n2\n", "Archery\n", "one Archery\n", "1 Archery\n1 Punch\n", "1 Archery\n2 Archery\n", "\n", "\0"],
)
def test_a_broken_class_index_is_named(text):
    lists = Path("data/ucf101/ucfTrainTestlist")
    Path("data/ucf101/UCF-101/Archery").mkdir(parents=True)
    lists.mkdir()
    (lists / "classInd.txt").write_text(text)
    with pytest.raises(TinvError, match=r"classInd\.txt"):
        UCF101(root="data").read_split()
