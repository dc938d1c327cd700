"""Figures of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinv.report.collect import RunGroup, order
from tinv.report.intervals import without_ends
from tinv.report.published import format_value
from tinv.report.training_curves import training_curves
from tinv.utils.io import png, write_bytes_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TITLES = {
    "test/mcs": "mean cosine similarity",
    "test/acc": "test accuracy (%)",
    "test/fpr95": "false positives at 95% recall",
    "test/auroc": "area under the ROC curve",
    "test/ap": "average precision",
}


LABEL_HEIGHT = 7.0
"""Percentage points that a number above a bar takes up."""


def figures(groups: Sequence[RunGroup], title: str) -> dict[str, Figure]:
    """Returns every figure that these groups can be drawn as, by the word that ends its file's name."""
    import matplotlib

    done = [group for group in groups if group.finished]
    if not done:
        return {}
    # a dollar sign in a name is no formula
    with matplotlib.rc_context({"text.parse_math": False}):
        drawn = {
            "": accuracy_bars(done, title) or grid_maps(done, title),
            "tradeoff": trade_off(done, title),
            "curves": curves(done, title),
            "training": training_curves(done, title),
        }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def accuracy_bars(groups: Sequence[RunGroup], title: str) -> Figure | None:
    """Draws the accuracy on each test set of each group, with its spread over seeds and the published value.

    The two-bar chart of Kayhan & van Gemert (2020) for Red-Green. None if there is only one test set.
    """
    from matplotlib.figure import Figure

    prefix = "test/acc/"
    sets = [metric.removeprefix(prefix) for metric in groups[0].values if metric.startswith(prefix)]
    groups = [group for group in groups if all(prefix + name in group.values for name in sets)]
    if len(sets) < 2 or not 0 < len(groups) <= 12:
        return None
    figure = Figure(figsize=(1.6 + 1.5 * len(groups), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(sets)
    for number, name in enumerate(sets):
        metric = prefix + name
        places = [group - 0.4 + width * (number + 0.5) for group in range(len(groups))]
        means = [group.mean(metric) for group in groups]
        spread = [group.std(metric) or 0 for group in groups]
        axes.bar(places, means, width * 0.94, yerr=spread, capsize=3, label=name, color=f"C{number}")
        known = [group.published.get(metric) for group in groups]
        for place, mean, above, value in zip(places, means, spread, known, strict=True):
            top = mean + above
            if value and top < value.mean < top + LABEL_HEIGHT:
                # above the published line, which would cross the number; over a line farther up it would look its own
                top = value.mean
            axes.text(place, top + 1.5, f"{mean:.1f}", ha="center", fontsize=9)
            if value:
                axes.plot([place - 0.45 * width, place + 0.45 * width], [value.mean] * 2, color="black", linewidth=2)
    keys = list(groups[0].setting)
    # a line a key, so that neighbours do not overlap
    labels = ["\n".join(map(str, group.setting.values())) or describe(group) for group in groups]
    axes.set_xticks(range(len(groups)), labels)
    if len(keys) > 1:
        axes.set_xlabel(", ".join(key.rpartition(".")[2] for key in keys))
    axes.set(ylabel="accuracy (%)", ylim=(0, 112), title=title)
    axes.axhline(50, color="grey", linewidth=0.8, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)
    if any(group.published for group in groups):
        axes.plot([], [], color="black", linewidth=2, label="published")
    axes.legend(title="test set", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def grid_maps(groups: Sequence[RunGroup], title: str) -> Figure | None:
    """Draws the mean cosine similarity and the accuracy of a grid of two numbers, such as kernel size and factor.

    The tables of Mouton et al. (2020) as heat maps; published values stand in brackets. None unless the groups differ
    in two numeric keys. Groups that were not run are left white.
    """
    from matplotlib.figure import Figure

    keys = list(groups[0].setting)
    if len(keys) != 2 or not all(_is_number(value) for group in groups for value in group.setting.values()):
        return None
    down, across = (sorted({group.setting[key] for group in groups}) for key in keys)
    shown = {metric: name for metric, name in TITLES.items() if all(metric in group.values for group in groups)}
    if not shown or min(len(down), len(across)) < 2:
        return None
    figure = Figure(figsize=(4.6 * len(shown), 4.2), layout="constrained")
    for axes, (metric, name) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        means = {tuple(group.setting.values()): group.mean(metric) for group in groups}
        values = [[means.get((row, column), float("nan")) for column in across] for row in down]
        image = axes.imshow(values, cmap="viridis")
        low, high = image.get_clim()
        for group in groups:
            row, column = down.index(group.setting[keys[0]]), across.index(group.setting[keys[1]])
            write = partial(format_value, metric, unit=group.unit(metric))
            text = write(group.mean(metric))
            if metric in group.published:
                text += f"\n({write(group.published[metric].mean)})"
            dark = group.mean(metric) < (low + high) / 2
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
        axes.set_xticks(range(len(across)), across)
        axes.set_yticks(range(len(down)), down)
        axes.set(title=name, xlabel=keys[1].rpartition(".")[2], ylabel=keys[0].rpartition(".")[2])
    known = any(group.published for group in groups)
    figure.suptitle(title + ("  (published in brackets)" if known else ""))
    return figure


def trade_off(groups: Sequence[RunGroup], title: str) -> Figure | None:
    """Draws similarity against accuracy, a point a group: colour by the first key, size by the second.

    Mouton et al. (2020) compare both in the same way. None unless every group has both and they differ in two keys.
    """
    from matplotlib.figure import Figure

    both = all({"test/mcs", "test/acc"} <= group.values.keys() for group in groups)
    if not both or len(groups[0].setting) != 2 or len(groups) < 4:
        return None
    first, second = groups[0].setting
    colours, sizes = (sorted({group.setting[key] for group in groups}, key=order) for key in (first, second))
    if len(colours) > 10 or len(sizes) > 10:
        return None
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, colour in enumerate(colours):
        row = sorted((c for c in groups if c.setting[first] == colour), key=lambda c: order(c.setting[second]))
        x, y = ([group.mean(metric) for group in row] for metric in ("test/acc", "test/mcs"))
        area = [30 + 60 * sizes.index(group.setting[second]) for group in row]
        label = f"{first.rpartition('.')[2]} {colour}"
        axes.plot(x, y, color=f"C{number}", linewidth=0.8, alpha=0.5)
        axes.scatter(x, y, s=area, color=f"C{number}", label=label, edgecolors="white", linewidths=0.8)
    name = second.rpartition(".")[2]
    axes.set(xlabel=TITLES["test/acc"], ylabel=TITLES["test/mcs"], title=title)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(
        title=f"larger points: {name}\n{' < '.join(map(str, sizes))}", loc="center left", bbox_to_anchor=(1, 0.5),
        frameon=False,
    )  # fmt: skip
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([60])
    return figure


def curves(groups: Sequence[RunGroup], title: str) -> Figure | None:
    """Draws metrics over a swept number, with their spread over seeds, a line for each value of the other keys.

    The number is that of the key with most values, all of them numbers but for one None, which is drawn last as `all`.
    Numbers that span a wide range are drawn at equal distances. None if no key is such a number, or there would be
    more than 10 lines.
    """
    from matplotlib.figure import Figure

    keys = list(groups[0].setting)
    values = {key: sorted({group.setting[key] for group in groups}, key=_place) for key in keys}
    numeric = [
        key for key in keys if all(_is_number(v) or v is None for v in values[key]) and values[key][0] is not None
    ]
    if not numeric:
        return None
    across = max(numeric, key=lambda key: (len(values[key]), keys.index(key)))
    points, others = values[across], [key for key in keys if key != across]
    lines = sorted(
        {tuple(group.setting[key] for key in others) for group in groups}, key=lambda line: [*map(order, line)]
    )
    common = set.intersection(*(set(group.values) for group in groups))
    shown = [name for name in groups[0].values if name.startswith("test/") and name in common]
    # neither bounds, nor single test sets where their mean is there
    shown = [name for name in without_ends(shown) if name.rpartition("/")[0] not in shown][:4]
    if len(points) < 2 or len(lines) > 10 or not shown:
        return None
    figure = Figure(figsize=(4.8 * len(shown) + 1.5 * (len(others) > 1), 3.8), layout="constrained")
    least = next((point for point in points if point), 1)
    wide = points[-1] is None or points[-1] / least >= 4
    at = {point: number if wide else point for number, point in enumerate(points)}
    for axes, metric in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for number, line in enumerate(lines):
            row = [group for group in groups if tuple(group.setting[key] for key in others) == line]
            row.sort(key=lambda group: _place(group.setting[across]))
            x, y = [at[group.setting[across]] for group in row], [group.mean(metric) for group in row]
            spread = [group.std(metric) or 0 for group in row]
            named = [f"{key.rpartition('.')[2]} {value}" for key, value in zip(others, line, strict=True)]
            label = ", ".join(named) or None
            axes.errorbar(x, y, spread, marker="o", capsize=3, color=f"C{number}", label=label)
            known = [
                (at[group.setting[across]], group.published[metric].mean) for group in row if metric in group.published
            ]
            if known:
                axes.plot(*zip(*known, strict=True), color=f"C{number}", linestyle=":", marker="x")
        axes.set_xticks(list(at.values()), ["all" if point is None else str(point) for point in points])
        axes.minorticks_off()
        axes.set(xlabel=across.rpartition(".")[2], ylabel=TITLES.get(metric, metric))
        axes.spines[["top", "right"]].set_visible(False)
    if others:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    dotted = any(metric in group.published for group in groups for metric in shown)
    figure.suptitle(title + ("  (dotted: published)" if dotted else ""))
    return figure


def _place(value: Any) -> tuple[bool, Any]:
    """Orders a key's values: None last."""
    return (value is None, order(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def describe(group: RunGroup) -> str:
    """Returns the values that tell a group from the others: `full_zero`, or `kernel_size=2, head=gap`."""
    if len(group.setting) == 1:
        return str(next(iter(group.setting.values())))
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in group.setting.items()) or "all runs"


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG, whole or not at all; returns the path."""
    write_bytes_atomically(path, png(figure, dpi=130))
    return path
