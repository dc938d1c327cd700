from tinv.nested import flatten, lookup

CONFIG = {"model": {"padding": "valid", "args": {}}, "seed": 3}


def test_flatten_gives_dotted_keys():
    assert dict(flatten(CONFIG)) == {"model.padding": "valid", "model.args": {}, "seed": 3}


def test_lookup_finds_a_dotted_key_or_none():
    assert lookup(CONFIG, "model.padding") == "valid"
    assert lookup(CONFIG, "model.absent") is None
    assert lookup(CONFIG, "seed.deeper") is None
