"""Damaged configuration files: one line that names the file, and the line of it where there is one."""

import random
from pathlib import Path

from boundary import Input, judge, numbers, seeded
from tiny_run import TINY

SOUND = """\
experiment: small  # a name
seed_everything: 3
model:
  init_args:
    padding: same_zero
    subsampling: keep
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 1.0e-3}}
data:
  init_args:
    num_train: 8
    batch_size: 4
trainer: {max_epochs: 1, limit_train_batches: 1}
checkpoint: {monitor: val/loss, mode: min}
"""
KEYS = ("experiment", "seed_everything", "model", "padding", "optimizer", "data", "batch_size", "trainer", "checkpoint")
VALID: dict[str, bytes] = {
    "as it is": SOUND.encode(),
    "byte order mark": b"\xef\xbb\xbf" + SOUND.encode(),
    "CRLF": SOUND.replace("\n", "\r\n").encode(),
    "no newline at the end": SOUND.rstrip("\n").encode(),
    "comments and blank lines": ("# café\n\n" + SOUND + "\n\n---\n").replace("\n---\n", "\n").encode(),
    "document marks": ("---\n" + SOUND + "...\n").encode(),
    "anchor": SOUND.replace("{lr: 1.0e-3}", "&o {lr: 1.0e-3}").encode(),
    "dots in a key": SOUND.replace("checkpoint: {monitor: val/loss, mode: min}", "checkpoint.mode: min").encode(),
    "one key": b"seed_everything: 4\n",
    "quoted": SOUND.replace("same_zero", "'same_zero'").replace("small", '"small ünïcödé"').encode(),
    "interpolation": SOUND.replace("batch_size: 4", "batch_size: ${data.init_args.num_train}").encode(),
    "yaml 1.2 number": SOUND.replace("1.0e-3", "1e-3").encode(),
}


def damaged(random: random.Random) -> tuple[bytes, str]:
    """Returns the bytes of a file that no run can be made of, and what is wrong with it."""
    text, key = SOUND, random.choice(KEYS)
    line = random.randrange(SOUND.count("\n"))
    lines = SOUND.splitlines()
    kinds = {
        "a key twice": "\n".join([*lines, f"{lines[0]}"]) + "\n",
        "a section twice": SOUND + "trainer: {max_epochs: 2}\n",
        "another key": text.replace(f"{key}:", f"{key}x:", 1),
        "no colon": text.replace(f"{key}:", f"{key}", 1),
        "a tab": "\n".join([*lines[:line], "\t" + lines[line], *lines[line + 1 :]]),
        "open bracket": text + random.choice("[{") + "\n",
        "open quote": text + random.choice("\"'") + "abc\n",
        "python tag": text.replace("small", random.choice(["!!python/object:os.system x", "!!python/name:os.system"])),
        "unknown alias": text.replace("same_zero", "*none"),
        "a loop": "model: &m {a: *m}\n" + text.partition("\n")[2].replace("model:", "modelx:"),
        "deep": "data: " + "[" * 4000 + "]" * 4000 + "\n",
        "deep mapping": "".join(f"{'  ' * depth}data:\n" for depth in range(400)),
        "a list": "- a\n- b\n",
        "a number": "3\n",
        "a text": "abc\n",
        "empty": random.choice(["", "\n\n", "# nothing\n", "---\n", "null\n"]),
        "two documents": text + "---\n" + text,
        "section is a list": text.replace("trainer: {max_epochs: 1, limit_train_batches: 1}", "trainer: [1, 2]"),
        "section is a text": text.replace("checkpoint: {monitor: val/loss, mode: min}", "checkpoint: abc"),
        "section is null": text.replace("checkpoint: {monitor: val/loss, mode: min}", "checkpoint:"),
        "key is a list": text + "? [a, b]\n: 3\n",
        "key is a number": text + "3: 4\n",
        "key is null": text + "null: 4\n",
        "a key twice, once with dots": text + "trainer.max_epochs: 3\n",
        "date": text.replace("batch_size: 4", "batch_size: 2020-01-01"),
        "wrong type": text.replace(
            "batch_size: 4", f"batch_size: {random.choice(['four', '[4]', '4.5', 'null', '{a: 1}'])}"
        ),
        "wrong choice": text.replace("same_zero", random.choice(["same_zer", "3", "[same_zero]", "null", "''"])),
        "no such class": text.replace("torch.optim.Adam", random.choice(["torch.optim.Adm", "adam", "os.getcwd", "3"])),
        "unresolved": text.replace(
            "same_zero", random.choice(["${no.such}", "${", "${x:y}", "${model.init_args.padding}"])
        ),
        "bytes": None,
    }
    kind = random.choice(sorted(kinds))
    if (chosen := kinds[kind]) is not None:
        return chosen.encode(), kind
    content = bytearray(SOUND.encode())
    noise = {
        "latin-1": SOUND.replace("a name", "caf\xe9").encode("latin-1"),
        "UTF-16": SOUND.encode("utf-16"),
        "NUL": SOUND.replace("small", "sm\0ll").encode(),
        "gzip": b"\x1f\x8b\x08\x00" + random.randbytes(50),
        "noise": random.randbytes(200),
        "control": SOUND.replace("small", "sm\x07ll").encode(),
        "zeros": bytes(100),
        "flipped": bytes(content[:20] + bytes([content[20] | 0x80]) + content[21:]),
    }
    kind = random.choice(sorted(noise))
    return noise[kind], kind


@numbers(22, 250)
def test_a_damaged_configuration_is_one_line(number, capfd):
    random = seeded("yaml", number)
    content, kind = damaged(random)
    Path("own.yaml").write_bytes(content)
    names = ("own.yaml", "batch_size", "padding", "optimizer", "checkpoint", "trainer", "experiment")
    judge(Input(["fit", *TINY, "--config=own.yaml"], names, "refused", kind), capfd)
    assert not Path("runs").exists()


@numbers(3, 60)
def test_a_valid_configuration_is_taken(number, capfd):
    kind = sorted(VALID)[number % len(VALID)]
    Path("own.yaml").write_bytes(VALID[kind])
    judge(Input(["fit", *TINY, "--config=own.yaml"], (), "taken", kind), capfd)
