"""UCF101 and HMDB51: which action does a clip show?"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from tinv.data.clip_batches import ClipDataset, Clips, WholeVideo, one_after_the_other, one_each
from tinv.data.file_data import FileData
from tinv.data.image_cache import ImageCache
from tinv.data.image_files import OnError, class_folders, image_files
from tinv.data.in_memory import Batch, data_root
from tinv.data.video_files import VideoFiles, VideoIndex, index_videos
from tinv.errors import TinvError, unknown
from tinv.utils.io import read_lines

MEAN = (114.7748, 107.7354, 99.4750)
"""Of red, green and blue, 0 to 255; taken off, and nothing else (Hara et al., 2018)."""


class ActionClips(FileData):
    """Base of the data modules of videos with official splits. A subclass says in `read_split` what these are.

    Training takes one clip of each video an epoch, from anywhere; validation the middle one of each test video; the
    test all clips that do not overlap, whose probabilities are averaged for each video. Videos shorter than a clip are
    looped. All videos are decoded once to count their frames; the counts are kept.

    Args:
        root: folder of data sets; None takes `$TINV_DATA`, else `data`.
        split: 1, 2 or 3.
        frames: of a clip.
        size: side of a clip in pixels.
        augment: whether training clips are cut at random places and mirrored.
        absent: what a video does that the split names and that is not there: `raise` an error, or `skip` it.
        on_error: what a damaged video does.
        cache: keeps all frames on disk, resized to this shorter side in pixels, for all epochs and runs; None decodes
            each clip anew.
        batch_size: clips a step (and a process).
        num_workers: processes that decode.
        seed: of order and cutting; None takes the run's seed (`seed_everything`).
        cache_dir: folder of the index and of the cache; None takes `~/.cache/tinv`.
    """

    num_classes: int

    def __init__(
        self,
        root: str | None = None,
        split: int = 1,
        frames: int = 16,
        size: int = 112,
        augment: bool = True,
        absent: OnError = "raise",
        on_error: OnError = "raise",
        cache: int | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(on_error, batch_size, num_workers, seed, cache_dir)
        if split not in (1, 2, 3):
            raise TinvError(f"split must be 1, 2 or 3, not {split}")
        for key, value in (("frames", frames), ("size", size)):
            if value < 1:
                raise TinvError(f"{key} must be 1 or more, not {value}")
        if absent not in get_args(OnError):
            raise unknown("absent", absent, get_args(OnError))
        if cache is not None and cache < size:
            raise TinvError(f"cache={cache} keeps frames smaller than size={size}; make it {size} or more")
        self.cache_side = cache
        self.root, self.split, self.frames, self.size, self.augment = data_root(root), split, frames, size, augment
        self.absent: OnError = absent
        self.found: dict[str, tuple[VideoFiles, VideoIndex, list[int]]] = {}
        self.counts: dict[str, int] = {}

    @abstractmethod
    def read_split(self) -> tuple[Path, dict[str, list[tuple[str, int]]], list[str]]:
        """Returns the folder of videos, the (CLASS/NAME, class) of those of `train` and of `test`, and the classes."""

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of a clip."""
        return (3, self.frames, self.size, self.size)

    @property
    def augments(self) -> bool:
        """Whether training clips are cut, flipped and scaled anew each epoch."""
        return self.augment

    @property
    def video_of(self) -> Tensor:
        """(N,) the video that each test clip is of."""
        return torch.from_numpy(self._clips("test").videos)

    def prepare_data(self) -> None:
        """Indexes the videos, once on each machine."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Finds and indexes the videos, once.

        Raises:
            TinvError: if the split cannot be read, videos are absent or damaged, or none are left.
        """
        if self.found:
            return
        folder, sets, classes = self.read_split()
        _check_names(sets)
        for name, listed in sets.items():
            there = [(place, target) for video, target in listed if (place := _place(folder, video)) is not None]
            gone = len(listed) - len(there)
            if gone and self.absent == "raise":
                first = next(video for video, _ in listed if _place(folder, video) is None)
                raise TinvError(
                    f"{gone} of the {len(listed)} videos of the {name} list are not in {folder}, first of all {first}; "
                    "get them, or leave them out with data.init_args.absent=skip"
                )
            if not there:
                raise TinvError(f"{folder} holds none of the {len(listed)} videos of the {name} list")
            plain = image_files(folder, [video for video, _ in there], [target for _, target in there], classes)
            files = VideoFiles(plain.folder, plain.names, plain.targets, plain.classes)
            index = index_videos(files, self.cache_dir, self.num_workers)
            if index.damaged and self.on_error == "raise":
                raise TinvError(
                    f"{next(iter(index.damaged.values()))}; remove it, or leave such files out with on_error: skip"
                )
            self.skipped.update(str(files.path(number)) for number in index.damaged)
            good = np.flatnonzero(index.frames > 0).tolist()
            if not good:
                raise TinvError(f"none of the {len(files)} videos of the {name} list can be decoded; all were skipped")
            self.found[name] = files, index, good
            if (cache := self._cache(files)) is not None:
                cache.build(self.num_workers)
            self.counts |= {f"{name}_videos": len(good), f"{name}_absent": gone}

    def _cache(self, files: VideoFiles) -> ImageCache | None:
        return None if self.cache_side is None else ImageCache(self.cache_dir, files, WholeVideo(self.cache_side))

    def _clips(self, name: str) -> Clips:
        self.setup()
        _, index, good = self.found["train" if name == "train" else "test"]
        if name == "test":
            return one_after_the_other(index, good, self.frames)
        return one_each(index, good, None if name == "train" and self.augments else self.frames)

    def dataset(self, name: str) -> ClipDataset:
        """Returns what reads the clips of a set."""
        clips = self._clips(name)
        files, index, _ = self.found["train" if name == "train" else "test"]
        augment = name == "train" and self.augments
        return ClipDataset(files, index, clips, self.frames, self.size, augment, self.seed, self._cache(files))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the network's input of a batch of bytes, on the device it is on: (N, 3, T, H, W) float32."""
        clips = batch.image.float().sub_(torch.tensor(MEAN, device=batch.image.device))
        return batch._replace(image=clips.permute(0, 4, 1, 2, 3))

    @property
    def facts(self) -> dict[str, Any]:
        """Counts for results.json, with the checksums of the lists of videos."""
        sums = {f"{name}_sha256": files.sha256() for name, (files, _, _) in self.found.items()}
        return {**self.counts, **sums, "skipped": len(self.skipped), "skipped_files": sorted(self.skipped)[:100]}


def _place(folder: Path, video: str) -> str | None:
    """Returns where a video is, relative to its folder: the file, or a folder of its frames without the suffix."""
    if (folder / video).exists() and not (folder / video).is_dir():
        return video  # what is no regular file is refused where it is read
    frames = video.rpartition(".")[0]
    return frames if (folder / frames).is_dir() else None


def _check_names(sets: dict[str, list[tuple[str, int]]]) -> None:
    seen: dict[str, str] = {}
    for name, listed in sets.items():
        for video, _ in listed:
            if video in seen:
                both = (
                    f"twice in the {name} list" if seen[video] == name else f"in the {seen[video]} and the {name} list"
                )
                raise TinvError(f"the video {video} stands {both}; correct the split")
            seen[video] = name


def _lines(path: Path) -> list[list[str]]:
    if not path.exists():
        raise TinvError(f"no split file {path}; get it with the data set")
    return [line.split() for _, line in read_lines(path, "surrogateescape")]


def _class_index(path: Path) -> list[str]:
    """Returns the classes that a file names, a number and a name on each line, in the order of the numbers."""
    named: dict[int, str] = {}
    for words in _lines(path):
        if len(words) != 2 or not words[0].isdecimal():
            raise TinvError(f"{path}: {' '.join(words)!r} is not a number and the name of a class")
        if int(words[0]) in named or words[1] in named.values():
            raise TinvError(f"{path}: the number or the name of {' '.join(words)!r} is there twice")
        named[int(words[0])] = words[1]
    if not named:
        raise TinvError(f"{path} names no classes")
    return [named[number] for number in sorted(named)]


class UCF101(ActionClips):
    """13,320 videos of 101 actions (Soomro, Zamir & Shah, 2012), in their official layout.

    Reads `ROOT/ucf101/UCF-101/CLASS/*.avi` and `ROOT/ucf101/ucfTrainTestlist/*.txt`. See ActionClips for the options.
    """

    num_classes = 101

    def read_split(self) -> tuple[Path, dict[str, list[tuple[str, int]]], list[str]]:
        """Reads `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`."""
        folder, lists = _folder(self.root, "ucf101", "UCF-101"), _folder(self.root, "ucf101", "ucfTrainTestlist")
        classes = _class_index(lists / "classInd.txt")
        number = {name: place for place, name in enumerate(classes)}
        strange = sorted(set(class_folders(folder)) - set(classes))
        if strange:
            raise TinvError(f"{folder / strange[0]} is a class that {lists / 'classInd.txt'} does not name")
        sets: dict[str, list[tuple[str, int]]] = {}
        for name in ("train", "test"):
            path = lists / f"{name}list0{self.split}.txt"
            sets[name] = []
            for words in _lines(path):
                if len(words) > 2:
                    raise TinvError(f"{path}: {' '.join(words)!r} is not a video and at most the number of its class")
                if (of := words[0].partition("/")[0]) not in number:
                    raise TinvError(f"{path} names {words[0]}, a class that {lists / 'classInd.txt'} does not")
                sets[name].append((words[0], number[of]))
        return folder, sets, classes


class HMDB51(ActionClips):
    """6,766 videos of 51 actions (Kuehne et al., ICCV 2011), in their official layout.

    Reads `ROOT/hmdb51/hmdb51_org/CLASS/*.avi` and `ROOT/hmdb51/testTrainMulti_7030_splits/CLASS_test_splitN.txt`. See
    ActionClips for the options.
    """

    num_classes = 51

    def read_split(self) -> tuple[Path, dict[str, list[tuple[str, int]]], list[str]]:
        """Reads a list a class: 1 after a video is training, 2 test, 0 neither."""
        folder = _folder(self.root, "hmdb51", "hmdb51_org")
        lists = _folder(self.root, "hmdb51", "testTrainMulti_7030_splits")
        end = f"_test_split{self.split}.txt"
        classes = sorted(path.name.removesuffix(end) for path in lists.glob(f"*{end}"))
        if not classes:
            raise TinvError(f"{lists} holds no CLASS{end}; get the splits with the data set")
        strange = sorted(set(class_folders(folder)) - set(classes))
        if strange:
            raise TinvError(f"{folder / strange[0]} is a class without {lists / (strange[0] + end)}")
        sets: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        for target, name in enumerate(classes):
            for words in _lines(lists / f"{name}{end}"):
                if len(words) != 2 or words[1] not in ("0", "1", "2"):
                    raise TinvError(f"{lists / (name + end)}: {' '.join(words)!r} is no video and 0, 1 or 2")
                if words[1] != "0":
                    sets["train" if words[1] == "1" else "test"].append((f"{name}/{words[0]}", target))
        return folder, sets, classes


def _folder(root: str, data_set: str, name: str) -> Path:
    places = [Path(root) / data_set / name, Path(root) / name]
    for place in places:
        if place.is_dir():
            return place
    raise TinvError(
        f"no folder {places[0]} or {places[1]}; get the data set, and name the folder that holds it with "
        f"--data.init_args.root=DIR or TINV_DATA=DIR (now {root!r})"
    )
