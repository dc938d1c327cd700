"""Words that a reader of the field would not know, and the standard ones in their place, in code, messages and docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
STANDARD = {
    r"\bknows? where it looks\b": "encodes absolute position",
    r"\banswers? alike\b": "predictions agree under shifts",
    r"\bto blame\b": "which component causes it",
    r"\bread rightly\b": "probe accuracy",
    r"\bgoing on (after|without|with)\b": "resuming",
    r"\blaid over\b": "merged over",
    r"\bthe door to\b": "the factory",
    r"\bwhole numbers\b": "integers",
    r"\bstands there twice\b": "is duplicated",
    r"\bmend(ed|s|ing)?\b": "fix, correct",
    r"\breckon(s|ed|ing)?\b": "compute",
    r"\bthinn?(ed|ing)? out\b": "subsampled",
    r"\b(go|goes|gone) on with\b": "resume",
    r"\bclassified rightly\b": "classified correctly, accuracy on unshifted images",
    r"\b(take_views|centre_view)\b": "shifted_views, center_view",
    r"\blikeness\b": "similarity",
    r"\ba copy a layer\b": "one copy per layer",
    r"\bwindows changed\b": "kernels re-padded",
    r"\b(each_axis|flat\(amounts)": "to_ntuple, to_f_pad_order",
    r"\b(Leading|Following|Shared)Polyphase\b": "PhaseSelector, SharedPhaseSampling",
    r"\bblank_(image|convolution|pool|norm|pointwise|concatenation|response)\b": "zero_image, conv_response, ...",
    r"\b(on_axes|places_of|layer_of)\b": "grid_by_axis, grid, layer_name",
    r"\b(on_meta|with_weights_of)\b": "copy_to_meta, materialize",
    r"\b(fold_pads|GraphBuilder|_least_size)\b": "absorb_explicit_padding, GraphRewriter, _minimum_input_size",
    r"\.meta\[": "an attribute of NetworkGraph",
    r"\bat_hand\b": "current_file",
    r"\bmake_once\b": "build_cache_dir",
    r"\b(WholeVideo|DealtBatches)\b": "AllFrames, UniquePointBatchSampler",
    r"\b(one_each|one_after_the_other)\b": "one_clip_per_video, non_overlapping_clips",
    r"\b(resize_and_centre|photographs_folder)\b": "resize_and_center, image_folder",
    r"data\.init_args\.((train|val|test)_size|canvas|cache|n_pairs|test_pairs|photographs|images|frames)\b": (
        "num_train, canvas_size, cache_resolution, num_pairs, num_images, num_frames"
    ),
}
TEXTS = [
    *ROOT.glob("tinv/**/*.py"),
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("configs/**/*.yaml"),
    *ROOT.glob("sweeps/*.yaml"),
]


def test_standard_words_are_used():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {pattern}; write {standard}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for pattern, standard in STANDARD.items()
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert len(TEXTS) > 100
    assert not found
