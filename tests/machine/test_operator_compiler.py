"""Operators compile sooner, to the same code, or as Jittor compiles them."""

import glob
import os
import re
import shlex
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from support.places import ROOT

from jseg.machine import operator_compiler
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

SCRIPT = str(ROOT / "jseg" / "machine" / operator_compiler.SCRIPT)

pytestmark = pytest.mark.skipif(jt.flags.cc_type != "g++", reason="only GCC keeps parsed headers")


def assembly(folder, flags, variant):
    """(the compiler's words on standard error, the code without the numbers of its labels)."""
    source, target = folder / "operator.cc", folder / "operator.s"
    source.write_text(OPERATOR)
    words = [word for word in shlex.split(flags) if not re.match(r"-(l|L|Wl,|shared)", word)]
    command = [jt.flags.cc_path, *words, *variant, "-Winvalid-pch", "-S", source, "-o", target]
    done = subprocess.run([*map(str, command)], stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    code = target.read_text().partition(".section\t.debug_info")[0]
    lines = [line for line in code.splitlines() if not re.match(r"\s*\.(file|loc|cfi)", line)]
    return done.stderr, re.sub(r"(\.L[A-Za-z]*)\d+", r"\1", "\n".join(lines))


def stand_in(folder, **changed):
    """What `use` asks of Jittor, with a cache of its own."""
    flags = jt.flags.cc_flags.partition(operator_compiler.MACROS)[0]
    names = dict(cc_flags=flags, cc_type="g++", cc_path=jt.flags.cc_path, cache_path=str(folder))
    names["python_path"] = "python with a space"
    return SimpleNamespace(__file__=jt.__file__, flags=SimpleNamespace(**{**names, **changed}))


@pytest.mark.parametrize("variant", ["plain", "debug"])
def test_jittor_takes_the_headers_and_g_plus_plus_finds_them_valid(tmp_path, variant):
    (header,) = re.findall(r'-include"([^"]+)"', jt.flags.cc_flags)
    assert sorted(os.listdir(f"{header}.gch")) == ["debug", "plain"]
    options = operator_compiler.VARIANTS[variant]
    words, code = assembly(tmp_path, jt.flags.cc_flags, options)
    assert words == ""  # -Winvalid-pch would say why the header is not used
    assert code == assembly(tmp_path, stand_in(tmp_path).flags.cc_flags, options)[1]


def test_they_are_made_once_and_anew_for_other_flags(tmp_path):
    compiler, cache = tmp_path / "g++", tmp_path / "cache"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\necho "$last" > "$last"\n')
    compiler.chmod(0o755)
    cache.mkdir()
    jittor = stand_in(cache, cc_path=str(compiler))
    assert operator_compiler.use(jittor) and operator_compiler.use(jittor)

    # The flags, the folder and the command.
    assert jittor.flags.cc_flags.count(operator_compiler.HEADER) == 1
    (folder,) = cache.iterdir()
    assert jittor.flags.cache_path == str(folder) and (folder / "jit").is_dir()
    script = folder / operator_compiler.SCRIPT
    assert jittor.flags.python_path == f'/bin/sh "{script}" --python="python with a space"'
    assert not list(folder.glob("*.part"))

    # The next process makes what is missing alone.
    times = {path: path.stat().st_mtime_ns for path in (folder / "operators.h.gch").iterdir()}
    plain, debug = sorted(times, reverse=True)
    assert (plain.name, debug.name) == ("plain", "debug")
    debug.unlink()
    assert operator_compiler.use(stand_in(cache, cc_path=str(compiler)))
    assert plain.stat().st_mtime_ns == times[plain] and debug.exists()

    flags = f"{stand_in(cache).flags.cc_flags} -DOTHER=1 "
    assert operator_compiler.use(stand_in(cache, cc_path=str(compiler), cc_flags=flags))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "changed",
    [{"cc_path": "/bin/false"}, {"cc_path": "/no/compiler"}, {"cc_type": "clang"}],
    ids=["a compiler that fails", "no compiler", "another compiler"],
)
def test_what_cannot_be_made_leaves_jittor_as_it_was(tmp_path, changed):
    jittor = stand_in(tmp_path, **changed)
    before = jittor.flags.cc_flags
    assert not operator_compiler.use(jittor) and jittor.flags.cc_flags == before
    assert not list(tmp_path.glob("*/*.gch/*")) and not list(tmp_path.glob("*/*.part"))


def test_a_folder_that_cannot_be_written_leaves_jittor_as_it_was(tmp_path):
    (tmp_path / "cache").write_text("a file")
    jittor = stand_in(tmp_path / "cache")
    before = jittor.flags.cc_flags
    assert not operator_compiler.use(jittor) and jittor.flags.cc_flags == before


def run_script(folder, marked, exit_status):
    """(exit status, words of what it started) with a compiler and a Python that print theirs."""
    source = folder / "an operator.cc"
    source.write_text("int a;\n" + '//@begin replace "a" "b"\n' * marked)
    for name in ("compiler", "python"):
        program = folder / f"the {name}"
        program.write_text(f'#!/bin/sh\nprintf "%s|" "{name}" "$@"\nexit {exit_status}\n')
        program.chmod(0o755)
    words = [f"--python={folder}/the python", "a/utils/asm_tuner.py"]
    words += [f"--cc_path={folder}/the compiler", str(source), "-O2", '-I"a b"', "-o", "x.so"]
    command = ["/bin/sh", SCRIPT, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, universal_newlines=True)
    return done.returncode, done.stdout.split("|")[:-1], words, str(source)


@pytest.mark.parametrize("exit_status", [0, 3])
def test_the_compiler_alone_makes_what_is_not_marked(tmp_path, exit_status):
    status, started, words, source = run_script(tmp_path, False, exit_status)
    assert status == exit_status
    assert started == ["compiler", source, *words[4:]]


@pytest.mark.parametrize("exit_status", [0, 3])
def test_jittor_s_tool_makes_what_is_marked(tmp_path, exit_status):
    status, started, words, _ = run_script(tmp_path, True, exit_status)
    assert status == exit_status
    assert started == ["python", *words[1:]]


def test_another_tool_of_jittor_is_started_as_it_is(tmp_path):
    run_script(tmp_path, False, 0)  # writes the programs
    words = [f"--python={tmp_path}/the python", "a/utils/dlink_compiler.py", "nvcc", "-dc"]
    command = ["/bin/sh", SCRIPT, *words]
    assert subprocess.check_output(command) == b"python|a/utils/dlink_compiler.py|nvcc|-dc|"


def test_both_ways_make_an_operator_s_same_machine_code(tmp_path):
    (key, *_) = sorted(glob.glob(os.path.join(jt.flags.cache_path, "jit", "*__OP_*_op.so.key")))
    with open(key) as file:
        command = shlex.split(file.readline())
    assert command[1].endswith(operator_compiler.SCRIPT)

    # Jittor's tool writes beside the source, so each way has a source of its own.
    codes = []
    for way, start in (("script", command), ("tool", [jt.compiler.python_path, *command[3:]])):
        source, target = tmp_path / f"{way}_op.cc", tmp_path / f"{way}_op.so"
        shutil.copyfile(command[5], source)
        words = [str(source) if word == command[5] else word for word in start]
        words[words.index("-o") + 1] = str(target)
        subprocess.check_call(words)
        subprocess.check_call(["objcopy", "-O", "binary", "-j", ".text", target, f"{target}.text"])
        codes.append((tmp_path / f"{target}.text").read_bytes())
    assert codes[0] == codes[1] and len(codes[0]) > 100
