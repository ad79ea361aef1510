"""The log against what was written to it, whatever ended the writing; the curves against closed
forms and by their pixels.
"""

import contextlib
import math
import os
import resource
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from support.places import ROOT

from jseg.training import curve as drawing
from jseg.training.curve import DRAWN_POINTS, draw_curve, grouped, running_mean
from jseg.training.log import Log

CRITIC = {"loss": 0.5, "critic/loss": 0.25}


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log.csv")


def fill(log, rows, first=1):
    for step in range(first, first + rows):
        log.append(step, {"loss": 1.0 / step, "mse": 0.5 / step})


def test_what_is_appended_is_read(log):
    values = [0.1, 1 / 3, 1e-30, -2.5e7, 16777217.0, 0.0]
    for place, value in enumerate(values):
        log.append(10 * place + 10, {"loss": value, "mse": -value})
        assert len(Log(log.path).read()["step"]) == place + 1, "at once"
    read = log.read()
    assert list(read) == ["step", "loss", "mse"] and read["step"].dtype == np.int64
    assert read["step"].tolist() == [10, 20, 30, 40, 50, 60]
    np.testing.assert_allclose(read["loss"], values, rtol=1e-7)
    np.testing.assert_array_equal(read["mse"], -read["loss"])
    assert log.path.read_text().splitlines()[:2] == ["step,loss,mse", "10,0.1,-0.1"]


def test_nothing_written_reads_as_nothing(log):
    assert {name: len(column) for name, column in log.read().items()} == {"step": 0}
    log.rewind(0)
    assert not log.path.exists()


def test_a_column_that_begins_later_is_empty_before(log):
    fill(log, 2)
    log.append(3, CRITIC)
    log.append(4, {"mse": 7.0})
    read = log.read()
    assert list(read) == ["step", "loss", "mse", "critic/loss"] and read["step"].tolist() == [
        1,
        2,
        3,
        4,
    ]
    np.testing.assert_allclose(read["loss"], [1.0, 0.5, 0.5, math.nan])
    np.testing.assert_allclose(read["mse"], [0.5, 0.25, math.nan, 7.0])
    np.testing.assert_allclose(read["critic/loss"], [math.nan, math.nan, 0.25, math.nan])
    assert {line.count(",") for line in log.path.read_text().splitlines()} == {3}


def test_numbers_that_are_none_come_back(log):
    log.append(1, {"loss": math.nan, "mse": math.inf})
    log.append(2, {"loss": np.float32(0.5), "mse": -math.inf})
    read = log.read()
    np.testing.assert_array_equal(read["loss"], [math.nan, 0.5])
    np.testing.assert_array_equal(read["mse"], [math.inf, -math.inf])


def test_a_resumed_log_has_each_step_once(log):
    fill(log, 9)
    resumed = Log(log.path)
    resumed.rewind(6)
    assert resumed.read()["step"].tolist() == [1, 2, 3, 4, 5, 6]
    fill(resumed, 3, first=7)
    whole = Log(log.path.with_name("whole.csv"))
    fill(whole, 9)
    assert log.path.read_bytes() == whole.path.read_bytes()


def test_rewinding_leaves_a_log_alone_that_needs_none(log):
    fill(log, 4)
    before = os.stat(log.path)
    Log(log.path).rewind(4)
    after = os.stat(log.path)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_run_that_begins_anew_forgets_the_old_columns(log):
    log.append(5, CRITIC)
    log.rewind(0)
    assert log.path.read_bytes() == b""
    log.append(1, {"loss": 2.0})
    assert log.path.read_text() == "step,loss\n1,2\n"


def test_wherever_the_file_is_torn_the_whole_lines_stay_and_writing_goes_on(log):
    fill(log, 5)
    content = log.path.read_bytes()
    for cut in range(len(content)):
        whole = max(0, content[:cut].count(b"\n") - 1)
        log.path.write_bytes(content[:cut])
        assert Log(log.path).read()["step"].tolist() == list(range(1, whole + 1)), cut
        fill(Log(log.path), 5 - whole, first=whole + 1)
        assert log.path.read_bytes() == content, cut


@pytest.mark.parametrize(
    "broken",
    ["\0\0\0\0", "3,0.5", "3,0.5,0.5,1", "3,0.5,o.5", "x,0.5,0.5", "-3,1,1", "", "3,\ufffd,1"],
)
def test_broken_lines_are_left_out(log, broken):
    log.path.write_text(f"step,loss,mse\n1,1,2\n{broken}\n2,3,4\n", encoding="utf-8")
    read = log.read()
    assert (read["step"].tolist(), read["loss"].tolist(), read["mse"].tolist()) == (
        [1, 2],
        [1, 3],
        [2, 4],
    )
    log.append(5, {"loss": 9})
    assert log.path.read_text() == "step,loss,mse\n1,1,2\n2,3,4\n5,9,\n"


def test_a_log_that_a_table_program_saved_is_read(log):
    log.path.write_bytes(b"\xef\xbb\xbfstep,loss\r\n1,2\r\n")
    log.append(2, {"loss": 3.0})
    assert log.path.read_bytes() == b"step,loss\n1,2\n2,3\n"


@pytest.mark.parametrize(
    "content", ["epoch,loss\n1,2\n", "10,loss=0.4\n", "step,loss,loss\n1,2,3\n"]
)
def test_another_program_s_file_is_refused_and_kept(log, content):
    log.path.write_text(content)
    for use in (
        log.read,
        log.rewind,
        lambda: log.append(1, CRITIC),
        lambda: draw_curve(log, log.path.with_suffix(".png"), "x"),
    ):
        with pytest.raises(
            ValueError,
            match=r"^\S+log\.csv is no log of a training: "
            r".*expected step,loss,\.\.\.; move it away$",
        ):
            use()
    assert log.path.read_text() == content and len(list(log.path.parent.iterdir())) == 1


@pytest.mark.parametrize("name", ["step", "a,b", 'a"b', "a\nb", ""])
def test_a_name_that_would_break_the_file_is_refused(log, name):
    fill(log, 1)
    before = log.path.read_bytes()
    with pytest.raises(ValueError, match="cannot be a column of"):
        log.append(2, {"loss": 1.0, name: 1.0})
    assert log.path.read_bytes() == before


def test_a_log_deleted_during_the_run_begins_again_with_its_columns(log):
    fill(log, 2)
    log.path.unlink()
    fill(log, 1, first=3)
    assert log.path.read_text() == "step,loss,mse\n3,0.33333333,0.16666667\n"


WRITER = """
import sys
from jseg.training.log import Log
log = Log(sys.argv[1])
step = 0
while True:
    step += 1
    losses = {"loss": step / 8}
    if step % 50 == 0 and step < 2000:
        losses[f"number{step // 50}"] = 1.0
    log.append(step, losses)
    if step == 60:
        print("writing", flush=True)
"""


def test_a_killed_process_leaves_all_its_rows(log, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(log.path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    read = log.read()
    assert len(read["step"]) >= 60
    assert read["step"].tolist() == list(range(1, len(read["step"]) + 1))
    np.testing.assert_array_equal(read["loss"], read["step"] / 8)
    assert read["number1"][49] == 1.0


@contextlib.contextmanager
def files_up_to(size):
    """A limit on the size of files, which stands for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_line_and_leaves_the_log_as_it_was(log):
    fill(log, 3)
    before = log.path.read_bytes()
    for room, values in ((3, {"loss": 1.0, "mse": 2.0}), (0, {"loss": 1.0}), (3, CRITIC)):
        with files_up_to(len(before) + room):
            said = r"^cannot write \S+log\.csv \((No space left on device|File too large)\)"
            with pytest.raises(OSError, match=said):
                log.append(4, values)
        assert log.path.read_bytes() == before and len(list(log.path.parent.iterdir())) == 1
    fill(log, 1, first=4)
    assert log.read()["step"].tolist() == [1, 2, 3, 4]


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(OSError, match=r"^cannot write \S+log\.csv \(No such file or directory\)"):
        Log(tmp_path / "none" / "log.csv").append(1, CRITIC)


def test_the_running_mean_is_the_mean_of_what_is_there():
    values = np.random.default_rng(0).normal(size=40)
    for half in (0, 3, 8):
        mean = running_mean(values, half)
        for place in range(40):
            reach = min(half, max(place, half // 4))
            assert mean[place] == pytest.approx(
                values[max(0, place - reach) : place + reach + 1].mean()
            ), (half, place)
    np.testing.assert_allclose(
        running_mean(np.arange(50.0), 4)[5:46],
        np.arange(5, 46),
        err_msg="a straight line stays where it is",
    )
    spiked = running_mean(np.array([1e30] + [1.0] * 99), 10)
    np.testing.assert_array_equal(spiked[11:], 1.0)


def test_a_long_log_is_drawn_with_few_points_and_its_level_kept():
    np.testing.assert_array_equal(grouped(np.arange(7.0), 3), [1, 4, 6])
    steps = np.arange(1, 100_001)
    values = np.where(steps % 2, 1.0, 3.0)
    values[::10] = math.nan
    curve = drawing._curve("loss", steps, values)
    assert (
        0.5 * DRAWN_POINTS
        < len(curve.steps)
        == len(curve.values)
        == len(curve.smooth)
        <= DRAWN_POINTS
    )
    assert 0 < curve.steps[0] < 200 and 99_800 < curve.steps[-1] <= 100_000 and curve.interval == 90
    np.testing.assert_allclose(
        curve.smooth[curve.span : -curve.span], np.nanmean(values), rtol=0.01
    )


def test_a_missing_matplotlib_is_told_from_an_empty_log_and_leaves_no_image(log, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw_curve(log.path, log.path.with_suffix(".png"), "unet") is False
    fill(log, 3)
    with pytest.raises(drawing.NoMatplotlib, match="pip install matplotlib"):
        draw_curve(log.path, log.path.with_suffix(".png"), "unet")
    assert [entry.name for entry in log.path.parent.iterdir()] == ["log.csv"]


def test_a_log_without_a_number_gives_no_image(log):
    assert draw_curve(log.path, log.path.with_suffix(".png"), "unet") is False
    log.append(1, {"loss": math.nan, "mse": math.inf})
    assert draw_curve(log.path, log.path.with_suffix(".png"), "unet") is False
    assert not log.path.with_suffix(".png").exists()


def image(log, title="unet"):
    assert draw_curve(log.path, log.path.with_suffix(".png"), title) is True
    with Image.open(log.path.with_suffix(".png")) as file:
        return np.asarray(file.convert("RGB")).astype(int)


def ink(pixels, colour):
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return np.abs(pixels - wanted).max(axis=-1) < 6


def test_the_curve_falls_in_the_image_as_in_the_log(log):
    pytest.importorskip("matplotlib")
    noise = np.random.default_rng(0).normal(size=300)
    for step in range(1, 301):
        log.append(step, {"loss": 10.0 - step / 50 + 0.05 * noise[step - 1]})
    pixels = image(log)
    rows, columns = np.nonzero(
        ink(pixels, drawing.FIRM)[pixels.shape[0] // 3 :]
    )  # below the legend
    left, right = columns < np.quantile(columns, 0.2), columns > np.quantile(columns, 0.8)
    assert rows[left].max() < rows[right].min() and np.ptp(columns) > pixels.shape[1] / 3
    assert ink(pixels, drawing.FAINT).sum() > 100


def test_what_falls_by_much_and_stays_positive_has_a_logarithmic_axis(log):
    figure = pytest.importorskip("matplotlib.figure")
    for step in range(1, 101):
        log.append(
            step,
            {
                "falls": 100.0 / step,
                "rises": 1.0 * step,
                "crosses": 50.0 - step,
                "hovers": 2.0 + step % 2,
            },
        )
    curves = [
        drawing._curve(name, log.read()["step"], log.read()[name]) for name in list(log.read())[1:]
    ]
    panels = drawing._figure(figure.Figure, curves, "x").axes
    assert [panel.get_yscale() for panel in panels] == ["log", "linear", "linear", "linear"]


def test_odd_logs_are_drawn_without_warnings(log):
    pytest.importorskip("matplotlib")
    late = {"critic/loss": math.nan, "never": math.nan, "high": 1e24}
    for step, values in enumerate([{}, late, {"critic/loss": -1e-9, "high": 1e36}], 1):
        log.append(step, {"loss": 0.0, **values})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = image(log, "50 $ and \u56fe_$")
        assert ink(pixels, drawing.FIRM).any(), step
    assert pixels.shape[1] > 2 * pixels.shape[0], (
        "three panels side by side: the column without a number has none"
    )


def test_a_user_s_settings_do_not_reach_the_image_nor_ours_the_user(log):
    matplotlib = pytest.importorskip("matplotlib")
    fill(log, 60)
    plain = image(log)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": True}):
        np.testing.assert_array_equal(image(log), plain)
        assert matplotlib.rcParams["font.size"] == 30


def test_an_image_that_cannot_be_written_leaves_the_old_one(log):
    pytest.importorskip("matplotlib")
    fill(log, 5)
    old = image(log)
    fill(log, 5, first=6)
    with files_up_to(1000), pytest.raises(OSError):
        draw_curve(log, log.path.with_suffix(".png"), "unet")
    with Image.open(log.path.with_suffix(".png")) as file:
        np.testing.assert_array_equal(np.asarray(file.convert("RGB")), old)
    assert len(list(log.path.parent.iterdir())) == 2
