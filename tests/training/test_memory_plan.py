"""What is chosen on GPUs of sizes made up for the test, and the page that tells it."""

import runpy

import pytest
from support.places import ROOT

from jseg.flowseg import training_memory as flowseg
from jseg.flowseg.presets import NETWORKS
from jseg.ldm.presets import UNETS
from jseg.ldm.training_memory import needs
from jseg.machine.free_memory import GpuMemory
from jseg.nn.chunks import ATTENTION_CHUNK_BYTES
from jseg.training.memory_plan import Need, Plan, choose

GB = 10**9
PLAIN, AGAIN = Need(8 * GB, 2 * GB, 2 * GB, GB), Need(8 * GB, 2 * GB, GB, GB // 4)


def card(usable):
    """A GPU on which that many GB can be used."""
    memory = GpuMemory(round((usable + 5) * GB / 0.95), 100 * GB)
    assert memory.usable == pytest.approx(usable * GB)
    return memory


def test_the_table_in_the_docs_is_what_the_code_chooses():
    table = runpy.run_path(str(ROOT / "benchmarks" / "memory_plan.py"))["table"]()
    for name in ("training.md", "training.zh-CN.md"):
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        lines = [line for line in page.splitlines() if line.startswith("| `t") and "GB" not in line]
        for row in table.splitlines()[2:]:
            assert row in lines, f"{name}: the output of benchmarks/memory_plan.py is another"


def test_the_release_s_recipe_fits_24_gb():
    plan = choose(5, GpuMemory(int(23.4 * GB), 24 * GB), *needs(UNETS["release"], True))
    assert plan.micro_batch == 5


@pytest.mark.parametrize(
    "usable, plan",
    [
        (21.1, Plan(8, False)),  # 8 + 2 * 2 + 2 + 7
        (31.1, Plan(20, False)),  # all at once need one set of gradients
        (17.1, Plan(4, False)),
        (16.9, Plan(20, True)),  # fewer than 4: recompute
        (13.1, Plan(1, True)),
    ],
)
def test_more_memory_is_more_at_a_time_and_recompute_is_for_little(usable, plan):
    assert choose(20, card(usable), PLAIN, AGAIN) == plan


@pytest.mark.parametrize("usable", [14, 15, 20, 40])
@pytest.mark.parametrize("part", [1, 5, 30])
def test_what_is_chosen_fits_and_is_no_more_than_there_is(usable, part):
    plan = choose(part, card(usable), PLAIN, AGAIN)
    need = AGAIN if plan.recompute else PLAIN
    assert 1 <= plan.micro_batch <= part
    assert need.total(plan.micro_batch, part) <= card(usable).usable


def test_what_is_given_is_done():
    assert choose(30, card(20), PLAIN, AGAIN, 12, None) == Plan(12, True)
    assert choose(30, card(20), PLAIN, AGAIN, None, False) == Plan(7, False)
    assert choose(30, card(20), PLAIN, AGAIN, None, True) == Plan(30, True)
    assert choose(30, card(1), PLAIN, AGAIN, 12, False) == Plan(12, False)
    assert choose(3, card(40), PLAIN, AGAIN, 12, None) == Plan(3, False)


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(ValueError) as refused:
        choose(30, card(12.9), PLAIN, AGAIN)
    assert str(refused.value).startswith(
        "one example at a time with recompute needs about 13.0 GB of the GPU's memory, 18.8 GB are "
        "free (12.9 GB for the training): give half of --width and --height, or take a smaller"
    )
    with pytest.raises(ValueError, match=r"training\): leave out --no_recompute, or"):
        choose(30, card(13.5), PLAIN, AGAIN, recompute=False)
    with pytest.raises(ValueError, match=r"training\): take a smaller --preset"):
        choose(30, card(3), PLAIN, AGAIN, recompute=False)


@pytest.mark.parametrize(
    "needs, config",
    [(needs, UNETS["release"]), *((flowseg.needs, config) for config in NETWORKS.values())],
)
def test_half_precision_takes_more_than_half_of_the_activations(needs, config):
    """Norms and sums stay float32; weights, gradients and moments are float32 in each."""
    for full, half in zip(needs(config, True), needs(config, True, 2)):
        assert full.each / 2 < half.each < 0.8 * full.each
        assert (half.state, half.gradients) == (full.state, full.gradients)


@pytest.mark.parametrize("gigabytes", [8, 12, 24, 40, 80])
@pytest.mark.parametrize("part", [5, 30])
def test_half_precision_computes_at_least_as_many_at_a_time(gigabytes, part):
    memory = GpuMemory(gigabytes * GB - GB // 2, gigabytes * GB)
    counts = []
    for size in (4, 2):
        both = needs(UNETS["release"], True, size)
        try:
            plan = choose(part, memory, *both)
        except ValueError:
            counts.append((False, 0))
            continue
        assert both[plan.recompute].total(plan.micro_batch, part) <= memory.usable
        counts.append((not plan.recompute, plan.micro_batch))
    assert counts[0] <= counts[1]


def test_the_line_says_what_was_chosen():
    line = Plan(6, True).line(GpuMemory(24 * GB, 24 * GB), 30)
    assert line.startswith(
        "24.0 GB free on the GPU: 30 examples as 5 micro-batches of 6 at most, recompute on; "
    )
    assert "30 examples at a time, recompute off" in Plan(30, False).line(card(80), 30)


def test_a_chunk_of_attention_s_scores_is_planned_and_no_more():
    chunk = ATTENTION_CHUNK_BYTES["cuda"]
    scores = chunk // 3
    need = Need(8 * GB, 2 * GB, 2 * GB, GB, scores)
    without = Need(8 * GB, 2 * GB, 2 * GB, GB)
    for count, filled in ((1, scores), (3, 3 * scores), (4, chunk), (20, chunk)):
        assert need.total(count, 20) - without.total(count, 20) == 4 * filled
    for memory in (14, 15, 16, 17):
        size = need.fitting(memory * GB, 20)
        assert need.total(size, 20) <= memory * GB < need.total(size + 1, 20)
    assert need.fitting(13 * GB, 20) == 0
