from tinv.config.merge import flatten, lookup, merge_configs

CONFIG = {"model": {"padding": "valid", "args": {}}, "seed": 3}


def test_flatten_gives_dotted_keys():
    assert dict(flatten(CONFIG)) == {"model.padding": "valid", "model.args": {}, "seed": 3}


def test_lookup_finds_a_dotted_key_or_none():
    assert lookup(CONFIG, "model.padding") == "valid"
    assert lookup(CONFIG, "model.absent") is None
    assert lookup(CONFIG, "seed.deeper") is None


def test_merge_configs_keeps_what_the_overlay_does_not_name():
    assert merge_configs(CONFIG, {"model": {"padding": "full_zero"}}) == {
        "model": {"padding": "full_zero", "args": {}},
        "seed": 3,
    }
    assert CONFIG["model"]["padding"] == "valid"  # the given ones are left as they are


def test_merge_configs_drops_the_options_of_another_class():
    old = {"data": {"class_path": "A", "init_args": {"a": 1, "both": 1}}}
    assert merge_configs(old, {"data": {"class_path": "B", "init_args": {"both": 2}}}) == {
        "data": {"class_path": "B", "init_args": {"both": 2}}
    }
    assert merge_configs(old, {"data": {"class_path": "A", "init_args": {"both": 2}}})["data"]["init_args"] == {
        "a": 1,
        "both": 2,
    }
