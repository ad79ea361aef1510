"""Standard streams that are closed, full or gone: the work is done all the same, and the exit code
is that of the work.
"""

import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.calls import words
from support.places import ROOT
from support.tiny import saved

from jseg.commands import cli
from jseg.ldm.presets import AUTOENCODERS
from jseg.machine import streams

# A shell's redirections; {gone} is a pipe whose reader has left.
ERROR_LOST = {"closed": "2>&-", "full": "2>/dev/full", "gone": "2>{gone}"}
OUTPUT_LOST = {"closed": ">&-", "full": ">/dev/full", "gone": ">{gone}"}


def shell(words, redirections, cwd=ROOT):
    """(exit code, what was printed, what was said) of a program of this Python started by a shell
    with these redirections.
    """
    reader, writer = os.pipe()
    os.close(reader)
    line = '"$@" ' + redirections.format(gone="&9")  # a shell knows numbers of one digit alone
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, *map(str, words)],
        cwd=str(cwd),
        close_fds=False,
        preexec_fn=lambda: os.dup2(writer, 9),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=300,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    os.close(writer)
    return done.returncode, done.stdout, done.stderr


def sample(body, redirections, tmp_path):
    """`shell` of a command whose main() is this Python text."""
    text = "\n".join("    " + line for line in body.splitlines())
    (tmp_path / "sample.py").write_text(
        f"import os, sys\nfrom jseg.commands import cli\ndef main(argv):\n{text}\n"
        "if __name__ == '__main__':\n    sys.exit(cli.run(main))\n"
    )
    return shell([tmp_path / "sample.py"], redirections)


CHATTY = """
from jseg.progress import ImageBar, TrainingBar
from tqdm import tqdm
print("begins " * 5000, file=sys.stderr, flush=True)
with TrainingBar(3) as bar:
    for step in range(1, 4):
        bar.show(step, 0.5)
with ImageBar(2) as bar:
    bar.show()
    bar.show()
for _ in tqdm(range(3)):
    pass
sys.stderr.writelines(["more\\n"])
open("made", "w").write("whole")
"""


@pytest.mark.parametrize("lost", ERROR_LOST)
def test_standard_error_that_cannot_be_written_changes_nothing(lost, tmp_path):
    code, printed, _ = sample(
        f"os.chdir({str(tmp_path)!r})\n{CHATTY}\nprint('result')", ERROR_LOST[lost], tmp_path
    )
    assert (code, printed, (tmp_path / "made").read_text()) == (0, "result\n", "whole")


@pytest.mark.parametrize("error", ["ValueError('wrong')", "KeyboardInterrupt", "MemoryError"])
@pytest.mark.parametrize("lost", ERROR_LOST)
def test_exit_codes_stay_where_nothing_can_be_said(lost, error, tmp_path):
    expected = 130 if error == "KeyboardInterrupt" else 2
    assert sample(f"raise {error}", ERROR_LOST[lost], tmp_path)[0] == expected


def test_a_log_whose_disk_has_room_again_goes_on(tmp_path):
    body = """
full = os.open("/dev/full", os.O_WRONLY)
before = os.dup(2)
os.dup2(full, 2)
print("lost", file=sys.stderr, flush=True)
os.dup2(before, 2)
print("read", file=sys.stderr, flush=True)
"""
    code, _, said = sample(body, "", tmp_path)
    assert code == 0 and said.endswith("read\n")


def test_both_streams_into_a_pipe_whose_reader_leaves(tmp_path):
    """As `train 2>&1 | head -2`: a command that prints nothing but says much goes on to its end."""
    body = (
        f"os.chdir({str(tmp_path)!r})\nimport time\nfor _ in range(20):\n    print('a line', "
        "file=sys.stderr)\n    time.sleep(0.05)\n"
    )
    body += "open('made', 'w').write('whole')"
    code, printed, _ = sample(body, "2>&1 | head -2", tmp_path)
    assert printed == "a line\na line\n" and (tmp_path / "made").read_text() == "whole"


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path):
    """Else what a library prints would go into a person's file."""
    body = f"""
file = open({str(tmp_path / "result")!r}, "w")
os.write(1, b"a library's word")
os.write(2, b"a library's word")
assert os.system("echo a child; echo a child >&2") == 0 and sys.stdin.read() == ""
file.write("result")
"""
    assert sample(body, "<&- >&- 2>&-", tmp_path)[0] == 0
    assert (tmp_path / "result").read_text() == "result"


def test_standard_output_on_a_full_disk_is_named_and_a_reader_that_left_is_quiet(tmp_path):
    expected = (
        "jseg sample: standard output cannot be written (No space left on device): what was to be "
        "printed is lost, files that were written are whole; send it to a place with room\n"
    )
    for body in ("print('result')", "print('result', flush=True)", "print('result ' * 5000)"):
        assert sample(body, OUTPUT_LOST["full"], tmp_path) == (2, "", expected)
        assert sample(body, OUTPUT_LOST["gone"], tmp_path) == (141, "", "")
        assert sample(body, OUTPUT_LOST["closed"], tmp_path) == (0, "", "")
        assert sample(body, OUTPUT_LOST["full"] + " 2>&1", tmp_path)[0] == 2


@pytest.mark.parametrize("name", cli.commands())
def test_the_help_and_a_wrong_option_of_every_command_without_streams(name):
    assert shell(["-m", "jseg", name, "--help"], "<&- >&- 2>&-") == (0, "", "")
    assert shell(["-m", "jseg", name, "--no_such_option"], "2>/dev/full")[0] == 2


def test_an_unknown_command_without_streams():
    for redirections in ("2>/dev/full", "2>&-"):
        assert shell(["-m", "jseg", "none"], redirections)[:2] == (2, "")


def test_the_streams_of_a_caller_come_back(capsys):
    before = sys.stdout, sys.stderr
    with streams.guard():
        with streams.guard():
            assert sys.stderr is not before[1]
        print("said", file=sys.stderr)
        print("printed")
        assert sys.stderr.encoding == before[1].encoding and not sys.stderr.isatty()
    assert (sys.stdout, sys.stderr) == before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("printed\n", "said\n")
    with streams.guard():
        sys.stderr = replaced = io.StringIO()
    assert sys.stderr is replaced
    sys.stderr = before[1]


# --- real work ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Weights, and images with label maps."""
    root = tmp_path_factory.mktemp("place")
    saved(root / "autoencoder.safetensors", AUTOENCODERS["tiny"])
    for name in ("imgs", "labels"):
        (root / "data" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        image = Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8))
        image.save(root / "data" / "imgs" / f"{number}.jpg")
        label = Image.fromarray(rng.integers(0, 29, (48, 64), np.uint8))
        label.save(root / "data" / "labels" / f"{number}.png")
    return root


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>&1", "2>{gone} >{gone}"])
def test_a_training_ends_well_without_anyone_to_talk_to(place, tmp_path, redirections):
    options = words(
        input_path=place / "data",
        output=tmp_path / "run",
        ae_path=place / "autoencoder.safetensors",
        preset="tiny",
        steps=1,
        batch_size=1,
        preview_interval=0,
        device="cpu",
    )
    code, _, said = shell(["-m", "jseg", "train", *options], redirections)
    assert code == 0, said
    assert (tmp_path / "run" / "checkpoint-00000001.safetensors").is_file()
    assert (tmp_path / "run" / "log.csv").is_file()


def test_a_conversion_into_a_full_standard_output_is_no_fault_of_the_weights(place, tmp_path):
    names = place / "autoencoder.safetensors", tmp_path / "out.safetensors"
    call = ["-m", "jseg", "convert_weights", *names]
    code, _, said = shell(call, ">/dev/full")
    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith("jseg convert_weights: standard output cannot be written")
    assert (tmp_path / "out.safetensors").is_file()
    assert shell(call, ">&-") == (0, "", "")


def test_a_terminal_that_is_closed_does_not_end_the_work(tmp_path):
    """What is written to a terminal after its window was closed is an input/output error."""
    made = tmp_path / "made"
    code = (
        "import sys, time\nfrom jseg.commands import cli\ndef main(argv):\n    "
        f"sys.stdin.read()\n    print('said', file=sys.stderr)\n    open({str(made)!r}, "
        "'w').write('whole')\nmain.__module__ = 'jseg.commands.sample'\nsys.exit(cli.run(main))"
    )
    master, terminal = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stderr=terminal,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(terminal)
    os.close(master)
    child.communicate(timeout=60)
    assert (child.returncode, made.read_text()) == (0, "whole")
