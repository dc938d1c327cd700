"""UCF101 and HMDB51: which action does a clip show?"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tinv.data.base import Stage
from tinv.data.batching import Batch
from tinv.data.clip_batches import AllFrames, ClipDataset, Clips, non_overlapping_clips, one_clip_per_video
from tinv.data.folders import data_root, find_folder
from tinv.data.formats.image_cache import ImageCache
from tinv.data.formats.images import ImageFiles, OnError, class_folders, image_files
from tinv.data.formats.videos import VideoIndex, index_videos
from tinv.data.from_files import FileData
from tinv.deprecation import RenamedWarning, renamed
from tinv.errors import TinvError
from tinv.utils.arguments import PositiveInt
from tinv.utils.io import read_lines

MEAN = (114.7748, 107.7354, 99.4750)
"""Of red, green and blue, 0 to 255; taken off, and nothing else (Hara et al., 2018)."""

ClipAugment = Literal["multi_scale_crop", "none"]


class ActionClips(FileData):
    """Base of the data modules of videos with official splits. A subclass says in `read_split` what these are.

    Training takes one clip of each video an epoch, from anywhere; validation the middle one of each test video; the
    test all clips that do not overlap, whose probabilities are averaged for each video. Videos shorter than a clip are
    looped. All videos are decoded once to count their frames; the counts are kept.

    Args:
        root: Folder of data sets; None takes `$TINV_DATA`, else `data`.
        split: Number of the official split, 1, 2 or 3.
        num_frames: Frames of a clip.
        size: Side of a clip in pixels.
        augment: Random changes to training clips: `multi_scale_crop` cuts them at random places in random sizes and
            mirrors half of them (Hara et al., 2018), `none` cuts their middle.
        absent: What a video does that the split names and that is not there: `raise` an error, or `skip` it.
        batch_size: Clips a step (and a process).
        **kwargs: See FileData.
    """

    num_classes: int
    name: str

    @renamed(frames="num_frames")
    def __init__(
        self,
        root: str | None = None,
        split: PositiveInt = 1,
        num_frames: PositiveInt = 16,
        size: PositiveInt = 112,
        augment: ClipAugment | bool = "multi_scale_crop",
        absent: OnError = "raise",
        batch_size: PositiveInt = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(size, batch_size, **kwargs)
        if split not in (1, 2, 3):
            raise TinvError(f"split must be 1, 2 or 3, not {split}")
        if isinstance(augment, bool):
            given, augment = augment, "multi_scale_crop" if augment else "none"
            warnings.warn(f"augment={given} is now augment={augment}", RenamedWarning, stacklevel=2)
        self.root, self.split, self.num_frames, self.augment = data_root(root), split, num_frames, augment
        self.absent: OnError = absent
        self.found: dict[str, tuple[ImageFiles, VideoIndex, list[int]]] = {}
        self.counts: dict[str, int] = {}

    @abstractmethod
    def read_split(self) -> tuple[Path, dict[str, list[tuple[str, int]]], list[str]]:
        """Returns the folder of videos, the (CLASS/NAME, class) of those of `train` and of `test`, and the classes."""

    def _folders(self, *names: str) -> list[Path]:
        """Returns folders of the data set, from a folder of its name or straight from the root."""
        root = Path(self.root)
        return [find_folder(type(self).__name__, [root / self.name / name, root / name], self.root) for name in names]

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of a clip."""
        return (3, self.num_frames, self.size, self.size)

    @property
    def is_augmented(self) -> bool:
        """Whether training clips are cut, flipped and scaled anew each epoch."""
        return self.augment != "none"

    @property
    def clip_to_video(self) -> Tensor:
        """(N,) the video that each test clip is of."""
        return torch.from_numpy(self._clips("test").videos)

    def prepare_data(self) -> None:
        """Indexes the videos, once on each machine."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Finds and indexes the videos, once.

        Raises:
            TinvError: If the split cannot be read, videos are absent or damaged, or none are left.
        """
        if self.found:
            return
        folder, sets, classes = self.read_split()
        _check_names(sets)
        for name, listed in sets.items():
            there = [(path, target) for video, target in listed if (path := _video_path(folder, video)) is not None]
            gone = len(listed) - len(there)
            if gone and self.absent == "raise":
                first = next(video for video, _ in listed if _video_path(folder, video) is None)
                raise TinvError(
                    f"{gone} of the {len(listed)} videos of the {name} list are not in {folder}, first of all {first}; "
                    "get them, or leave them out with data.init_args.absent=skip"
                )
            if not there:
                raise TinvError(f"{folder} holds none of the {len(listed)} videos of the {name} list")
            files = image_files(folder, [video for video, _ in there], [target for _, target in there], classes)
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
            if (cache := self._frame_cache(files)) is not None:
                cache.build(self.num_workers)
            self.counts |= {f"{name}_videos": len(good), f"{name}_absent": gone}

    def _frame_cache(self, files: ImageFiles) -> ImageCache | None:
        return self.cache(files, AllFrames(self.cache_resolution or 0))

    def _clips(self, stage: Stage) -> Clips:
        self.setup()
        _, index, good = self.found["train" if stage == "train" else "test"]
        if stage == "test":
            return non_overlapping_clips(index, good, self.num_frames)
        return one_clip_per_video(index, good, None if stage == "train" and self.is_augmented else self.num_frames)

    def dataset(self, stage: Stage) -> ClipDataset:
        """Returns what reads the clips of a set."""
        clips, augment = self._clips(stage), stage == "train" and self.is_augmented
        files, index, _ = self.found["train" if stage == "train" else "test"]
        cache = self._frame_cache(files)
        return ClipDataset(files, index, clips, self.num_frames, self.size, augment, self.seed, cache)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes the network's input of a batch of bytes, on the device it is on: (N, 3, T, H, W) float32."""
        clips = batch.image.float().sub_(torch.tensor(MEAN, device=batch.image.device))
        return batch._replace(image=clips.permute(0, 4, 1, 2, 3))

    @property
    def provenance(self) -> dict[str, Any]:
        """Counts for results.json, with the checksums of the lists of videos."""
        sums = {f"{name}_sha256": files.sha256() for name, (files, _, _) in self.found.items()}
        return {**self.counts, **sums, **super().provenance}


def _video_path(folder: Path, video: str) -> str | None:
    """Returns the path of a video, relative to its folder: the file, or a folder of its frames without the suffix."""
    if (folder / video).exists() and not (folder / video).is_dir():
        return video  # what is no regular file is refused where it is read
    frames = video.rpartition(".")[0]
    return frames if frames and (folder / frames).is_dir() else None


def _check_names(sets: dict[str, list[tuple[str, int]]]) -> None:
    seen: dict[str, str] = {}
    for name, listed in sets.items():
        for video, _ in listed:
            if (before := seen.get(video)) is not None:
                both = f"twice in the {name} list" if before == name else f"in the {before} and the {name} list"
                raise TinvError(f"the video {video} is listed {both}; correct the split")
            seen[video] = name


def _lines(path: Path) -> list[list[str]]:
    if not path.exists():
        raise TinvError(f"no split file {path}; get it with the data set")
    if not (lines := read_lines(path, "surrogateescape")):
        raise TinvError(f"{path} is empty; get it with the data set")
    return [line.split() for _, line in lines]


def _class_index(path: Path) -> list[str]:
    """Returns the classes that a file names, a number and a name on each line, in the order of the numbers."""
    named: dict[int, str] = {}
    for words in _lines(path):
        if len(words) != 2 or not words[0].isdecimal():
            raise TinvError(f"{path}: {' '.join(words)!r} is not a number and the name of a class")
        if int(words[0]) in named or words[1] in named.values():
            raise TinvError(f"{path}: the number or the name of {' '.join(words)!r} is there twice")
        named[int(words[0])] = words[1]
    return [named[number] for number in sorted(named)]


class UCF101(ActionClips):
    """13,320 videos of 101 actions (Soomro, Zamir & Shah, 2012), in their official layout.

    Reads `ROOT/ucf101/UCF-101/CLASS/*.avi` and `ROOT/ucf101/ucfTrainTestlist/*.txt`. See ActionClips for the options.
    """

    num_classes = 101
    name = "ucf101"

    def read_split(self) -> tuple[Path, dict[str, list[tuple[str, int]]], list[str]]:
        """Reads `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`."""
        folder, lists = self._folders("UCF-101", "ucfTrainTestlist")
        classes = _class_index(lists / "classInd.txt")
        number = {name: target for target, name in enumerate(classes)}
        if strange := sorted(set(class_folders(folder)) - set(classes)):
            raise TinvError(f"{folder / strange[0]} is a class that {lists / 'classInd.txt'} does not name")
        sets: dict[str, list[tuple[str, int]]] = {}
        for name in ("train", "test"):
            path = lists / f"{name}list0{self.split}.txt"
            sets[name] = []
            for words in _lines(path):
                if len(words) > 2 or not all(word.isdecimal() for word in words[1:]):
                    raise TinvError(f"{path}: {' '.join(words)!r} is not a video and at most the number of its class")
                of, _, video = words[0].partition("/")
                if of not in number:
                    raise TinvError(f"{path} names {words[0]}, a class that {lists / 'classInd.txt'} does not")
                if not video:
                    raise TinvError(f"{path}: {words[0]!r} is not CLASS/VIDEO")
                sets[name].append((words[0], number[of]))
        return folder, sets, classes


class HMDB51(ActionClips):
    """6,766 videos of 51 actions (Kuehne et al., ICCV 2011), in their official layout.

    Reads `ROOT/hmdb51/hmdb51_org/CLASS/*.avi` and `ROOT/hmdb51/testTrainMulti_7030_splits/CLASS_test_splitN.txt`. See
    ActionClips for the options.
    """

    num_classes = 51
    name = "hmdb51"

    def read_split(self) -> tuple[Path, dict[str, list[tuple[str, int]]], list[str]]:
        """Reads a list a class: 1 after a video is training, 2 test, 0 neither."""
        folder, lists = self._folders("hmdb51_org", "testTrainMulti_7030_splits")
        end = f"_test_split{self.split}.txt"
        classes = sorted(path.name.removesuffix(end) for path in lists.glob(f"*{end}"))
        if not classes:
            raise TinvError(f"{lists} holds no CLASS{end}; get the splits with the data set")
        if strange := sorted(set(class_folders(folder)) - set(classes)):
            raise TinvError(f"{folder / strange[0]} is a class without {lists / (strange[0] + end)}")
        sets: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        for target, name in enumerate(classes):
            for words in _lines(lists / f"{name}{end}"):
                if len(words) != 2 or words[1] not in ("0", "1", "2"):
                    raise TinvError(f"{lists / (name + end)}: {' '.join(words)!r} is no video and 0, 1 or 2")
                if words[1] != "0":
                    sets["train" if words[1] == "1" else "test"].append((f"{name}/{words[0]}", target))
        return folder, sets, classes
