"""What `tinv report --out FILE` writes."""

from pathlib import Path

from report.test_report import write_results

from tinv.cli import main


def test_the_ending_of_the_file_says_the_format(capsys):
    config = {"experiment": "tiny", "seed_everything": 0}
    write_results(Path("runs/a"), config, {"test/acc": 90.0})
    for form, ending, begins in (
        ("csv", "csv", "experiment,"), ("latex", "tex", "\\begin"), ("md", "md", "## "), ("html", "html", "<!doctype")
    ):  # fmt: skip
        for more in ([], ["--format", form]):
            assert main(["report", "runs", "--out", f"out.{ending}", *more]) == 0
            assert begins in Path(f"out.{ending}").read_text()
            Path(f"out.{ending}").unlink()
    assert main(["report", "runs", "--out", "out.csv", "--format", "md"]) == 2
    assert "--format md does not go with --out out.csv" in capsys.readouterr().err
    assert not Path("out.csv").exists()
