"""jseg/ldm/low_memory.py: what a guided step needs, and the choice on machines made up for the
test. (That little memory changes no number: test_unet.py, test_refine.py.)
"""

import dataclasses

import pytest

from jseg.counting import counted
from jseg.ldm import low_memory, modulations
from jseg.ldm.low_memory import choose, modulation_bytes, plan, step_bytes
from jseg.ldm.presets import AUTOENCODERS, UNETS
from jseg.ldm.unet import UNet
from jseg.machine.free_memory import GpuMemory
from jseg.nn.chunks import ATTENTION_CHUNK_BYTES
from jseg.nn.layers import one_hot
from jseg.runtime import jt

RELEASE, AUTOENCODER = UNETS["release"], AUTOENCODERS["release"]


@pytest.fixture
def free(monkeypatch):
    """Sets the machine's free memory."""
    return lambda count: monkeypatch.setattr(low_memory, "free_bytes", lambda: count)


@pytest.mark.parametrize("name", ["small", "landscape", "tiny"])
def test_the_bytes_of_modulations_are_those_of_the_network(name):
    config = dataclasses.replace(UNETS[name], width=32, height=16, channel_mult=(1, 2, 1))
    labels = jt.zeros((1, config.height, config.width), "int32")
    with jt.no_grad():
        entries = UNet(config).condition(one_hot(labels.numpy(), config.classes))
    assert modulation_bytes(config) == 4 * sum(v.numel() for v in modulations.variables(entries))


def test_the_release_s_modulations():
    assert modulation_bytes(RELEASE) == 388_399_104


def test_auto_is_low_where_less_is_free_than_a_step_needs(free):
    for batch in (1, 5):
        needed = step_bytes(RELEASE, batch)
        for count, low in ((needed - 1, True), (needed, False)):
            free(count)
            assert choose("auto", RELEASE, batch).low is low
    further = step_bytes(RELEASE, 2) - step_bytes(RELEASE, 1)
    assert step_bytes(RELEASE, 1) == further + modulation_bytes(RELEASE), "once for the null map"


def test_weights_that_are_not_loaded_yet_are_needed_too(free):
    free(step_bytes(RELEASE, 1) + 2_000_000_000)
    assert not choose("auto", RELEASE, 1).low
    choice = choose("auto", RELEASE, 1, autoencoder=AUTOENCODER)
    assert choice.low and choice.reason.endswith(" GB would be needed")
    assert choice.remark.startswith(f"memory: {choice.reason} to keep everything")


@pytest.mark.parametrize("count", [0, None, 1 << 40])
def test_what_was_asked_for_is_done(free, count):
    free(count)
    assert (choose("low", RELEASE, 1).low, choose("full", RELEASE, 1).low) == (True, False)


def test_a_gpu_and_a_system_that_tells_nothing_keep_everything(free):
    free(0)
    assert not choose("auto", RELEASE, 1, device="cuda").low
    free(None)
    assert not choose("auto", RELEASE, 1).low


def gpu(gigabytes):
    return GpuMemory(round(gigabytes * 10**9), round(gigabytes * 10**9))


def test_a_gpu_of_little_memory_makes_some_again(monkeypatch):
    for gigabytes, low in ((3, True), (20, False)):
        monkeypatch.setattr(low_memory, "gpu_memory", lambda size=gigabytes: gpu(size))
        assert choose("auto", RELEASE, 2, device="cuda").low is low


@pytest.mark.parametrize(
    "gigabytes, expected", [(3.9, (1, True)), (4.5, (1, False)), (8, (3, False)), (24, (5, False))]
)
def test_a_gpu_s_batch_is_what_fits(gigabytes, expected):
    chosen = plan(gpu(gigabytes), RELEASE, AUTOENCODER)
    assert chosen == expected
    mode = "low" if chosen.low else "full"
    start = f"{gigabytes:.1f} GB free on the GPU: {counted(chosen.batch, 'image[s]')} at a time"
    assert chosen.line(gpu(gigabytes)).startswith(f"{start}, memory {mode}; --batch_size")


def test_on_a_gpu_what_was_asked_for_is_done_and_too_little_memory_is_said():
    assert plan(gpu(24), RELEASE, AUTOENCODER, 12) == (12, False)
    assert plan(gpu(8), RELEASE, AUTOENCODER, 5) == (5, True)
    assert plan(gpu(8), RELEASE, AUTOENCODER, 40) == (40, True)
    assert plan(gpu(8), RELEASE, AUTOENCODER, None, "low") == (4, True)
    assert plan(gpu(1), RELEASE, AUTOENCODER, None, "full") == (1, False)
    with pytest.raises(ValueError, match="one image at a time needs about 3.4 GB of the GPU's"):
        plan(gpu(3), RELEASE, AUTOENCODER)


@pytest.mark.parametrize("mode", ["", "LOW", "little"])
def test_other_words_are_refused(mode):
    with pytest.raises(ValueError, match=f"memory '{mode}': expected auto, full or low"):
        choose(mode, RELEASE, 1)


def test_a_gpu_is_planned_with_a_chunk_of_attention_s_scores():
    chunk = ATTENTION_CHUNK_BYTES["cuda"]
    assert low_memory.score_bytes(RELEASE) == 4 * 8 * 768**2
    assert low_memory.step_attention_bytes(RELEASE, 1) == 2 * 2 * low_memory.score_bytes(RELEASE)
    assert low_memory.step_attention_bytes(RELEASE, 20) == 2 * chunk
    assert low_memory.decoding_bytes(RELEASE, 1) == 2 * chunk
    # what is planned fits with it
    for gigabytes in (4, 5, 6, 8, 10):
        batch, low = plan(gpu(gigabytes), RELEASE, AUTOENCODER)
        steps = step_bytes(RELEASE, batch, low) + low_memory.step_attention_bytes(RELEASE, batch)
        weights = low_memory.weight_bytes(RELEASE, AUTOENCODER)
        assert weights + steps <= gpu(gigabytes).usable
