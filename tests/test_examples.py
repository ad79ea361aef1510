"""The programs in examples/ run, write what they name, and print what their first lines show."""

import re
import runpy
import textwrap

import pytest
from support.places import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def promised(path):
    """The lines of an example's docstring below "prints"."""
    docstring = re.search(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.S).group(1)
    return textwrap.dedent(docstring.partition("prints\n\n")[2]).strip().splitlines()


def test_there_are_three():
    names = [path.stem for path in EXAMPLES]
    assert names == ["sample_image", "segment_image", "train_unet"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path))
    printed = capsys.readouterr().out.splitlines()
    expected = promised(path)

    # The words are the same; another CPU may round the last digit of a number in another way.
    assert [NUMBER.sub("N", line) for line in printed] == [
        NUMBER.sub("N", line) for line in expected
    ]
    for line, model in zip(printed, expected):
        numbers, models = (
            [float(number.replace(",", "")) for number in NUMBER.findall(text)]
            for text in (line, model)
        )
        assert numbers == pytest.approx(models, rel=0.1, abs=0.02), line

    # The last line names the file that was written.
    assert [item.name for item in tmp_path.iterdir()] == [printed[-1].partition(":")[0]]
