"""How the classes of a network are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files as package_files

IMAGENET_CLASSES = 1000


def class_names(classes: int, folders: Sequence[str] = ()) -> list[str]:
    """Returns a name for each class of a network, in the order of its outputs.

    As many folders as classes: the folders' names. Otherwise a network of 1,000 classes is taken for one of ImageNet,
    and any other has `class 7`. Synsets of ImageNet (`n01440764`) become words, from the lists that timm ships.

    Args:
        classes: Classes of the network.
        folders: Names of the class folders, sorted; empty for a flat folder.

    Examples:
        >>> class_names(3, ["ant", "bee", "cat"])
        ['ant', 'bee', 'cat']
        >>> class_names(3)
        ['class 0', 'class 1', 'class 2']
        >>> class_names(1000)[217]
        'English springer'
    """
    if len(folders) == classes:
        words = imagenet_names() if any(name[:1] == "n" and name[1:].isdigit() for name in folders) else {}
        return [words.get(name, name) for name in folders]
    if classes == IMAGENET_CLASSES:
        return list(imagenet_names().values())
    return [f"class {number}" for number in range(classes)]


@cache
def imagenet_names() -> dict[str, str]:
    """Returns the names of ImageNet's 1,000 classes by their synsets, in order of the class numbers.

    A name is the first of the synset's words; where two classes share it, all of its words, and where they share those
    too, such as the two cranes, the class number as well.
    """
    folder = package_files("timm.data._info")
    lines = folder.joinpath("imagenet_synset_to_lemma.txt").read_text().splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    synsets = folder.joinpath("imagenet_synsets.txt").read_text().split()
    first = {synset: words[synset].partition(",")[0] for synset in synsets}
    shared = Counter(first.values())
    names = {synset: name if shared[name] == 1 else words[synset] for synset, name in first.items()}
    again = Counter(names.values())
    return {
        synset: name if again[name] == 1 else f"{name} ({number})"
        for number, (synset, name) in enumerate(names.items())
    }
