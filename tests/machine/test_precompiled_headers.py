"""Operators compile against headers that g++ parsed once, to the same code, or as before."""

import os
import re
import shlex
import subprocess
from types import SimpleNamespace

import pytest

from jseg.machine import precompiled_headers
from jseg.runtime import jt

OPERATOR = """
#define JIT 1
#define JIT_cpu 1
#include <cmath>
#include "var.h"
#include "ops/op_register.h"
#include "fused_op.h"
float scaled_root(float x, int n) { return n * std::sqrt(x) + jittor::float32(1); }
"""

pytestmark = pytest.mark.skipif(jt.flags.cc_type != "g++", reason="only GCC keeps parsed headers")


def assembly(folder, flags):
    """(the compiler's words on standard error, the code without the numbers of its labels)."""
    source, target = folder / "operator.cc", folder / "operator.s"
    source.write_text(OPERATOR)
    words = [word for word in shlex.split(flags) if not re.match(r"-(l|L|Wl,|shared)", word)]
    command = [jt.flags.cc_path, *words, "-g", "-Winvalid-pch", "-S", source, "-o", target]
    done = subprocess.run([*map(str, command)], stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    code = target.read_text().partition(".section\t.debug_info")[0]
    lines = [line for line in code.splitlines() if not re.match(r"\s*\.(file|loc|cfi)", line)]
    return done.stderr, re.sub(r"(\.L[A-Za-z]*)\d+", r"\1", "\n".join(lines))


def stand_in(folder, **changed):
    """What `use` asks of Jittor, with a cache of its own."""
    flags = jt.flags.cc_flags.partition(precompiled_headers.MACROS)[0]
    names = dict(cc_flags=flags, cc_type="g++", cc_path=jt.flags.cc_path, cache_path=str(folder))
    return SimpleNamespace(__file__=jt.__file__, flags=SimpleNamespace(**{**names, **changed}))


def test_jittor_takes_them_and_g_plus_plus_finds_them_valid(tmp_path):
    (header,) = re.findall(r'-include"([^"]+)"', jt.flags.cc_flags)
    assert os.path.exists(header) and os.path.exists(f"{header}.gch")
    with_them, without = jt.flags.cc_flags, stand_in(tmp_path).flags.cc_flags
    assert assembly(tmp_path, with_them)[0] == ""  # -Winvalid-pch would say why they are not used
    assert assembly(tmp_path, with_them)[1] == assembly(tmp_path, without)[1]


def test_they_are_made_once_and_anew_for_other_flags(tmp_path):
    jittor = stand_in(tmp_path)
    assert precompiled_headers.use(jittor) and precompiled_headers.use(jittor)
    assert jittor.flags.cc_flags.count(precompiled_headers.HEADER) == 1
    (folder,) = tmp_path.iterdir()
    assert jittor.flags.cache_path == str(folder) and (folder / "jit").is_dir()
    assert not list(folder.glob("*.part"))
    made = (folder / "operators.h.gch").stat().st_mtime_ns
    assert precompiled_headers.use(stand_in(tmp_path))
    assert (folder / "operators.h.gch").stat().st_mtime_ns == made
    other = stand_in(tmp_path, cc_flags=f"{stand_in(tmp_path).flags.cc_flags} -DOTHER=1 ")
    assert precompiled_headers.use(other) and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "changed",
    [{"cc_path": "/bin/false"}, {"cc_path": "/no/compiler"}, {"cc_type": "clang"}],
    ids=["a compiler that fails", "no compiler", "another compiler"],
)
def test_what_cannot_be_made_leaves_jittor_as_it_was(tmp_path, changed):
    jittor = stand_in(tmp_path, **changed)
    before = jittor.flags.cc_flags
    assert not precompiled_headers.use(jittor) and jittor.flags.cc_flags == before
    assert not list(tmp_path.glob("*/*.gch")) and not list(tmp_path.glob("*/*.part"))


def test_a_folder_that_cannot_be_written_leaves_jittor_as_it_was(tmp_path):
    (tmp_path / "cache").write_text("a file")
    jittor = stand_in(tmp_path / "cache")
    before = jittor.flags.cc_flags
    assert not precompiled_headers.use(jittor) and jittor.flags.cc_flags == before
