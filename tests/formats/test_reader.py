"""Files of other programs: read exactly, without their programs; damaged and hostile ones refused
in one line, with nothing run.
"""

import argparse
import collections
import functools
import io
import json
import os
import pickle
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import refusals
from support.places import GOLDEN

from jseg.checkpoint import CheckpointError, load, load_config, save
from jseg.ldm.presets import UNETS

FILES = "torch_zip.ckpt torch_legacy.pth library.safetensors numpy2.pkl jittor_vars.pkl".split()
NO_TYPE_NAMES = {"jittor_vars.pkl": {"f32", "f16", "i32", "u8", "bool"}}


def expected_arrays():
    with np.load(GOLDEN / "checkpoint_arrays.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_same(given, expected):
    assert list(given) == list(expected)
    for name, array in expected.items():
        assert given[name].dtype == array.dtype and given[name].shape == array.shape, name
        assert np.array_equal(given[name], array), name
        assert given[name].flags.writeable and given[name].flags.c_contiguous


def written(tmp_path, data, name="weights"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def refusal(path, **options):
    message = refusals.refusal(load, path, kind=CheckpointError, most=1500, **options)
    assert str(path) in message
    return message


@functools.lru_cache(maxsize=None)
def own_file(suffix):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("own" + suffix)
        average = {"a.weight": np.full((2, 3), 5, np.float32)}
        save(path, own_state(), UNETS["tiny"], step=3, ema=average)
        return path.read_bytes()


def own_state():
    return {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a.bias": np.array([1.5, 2.5], np.float16),
        "n": np.arange(3),
    }


# Reading
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_programs_are_read_exactly(name, tmp_path):
    expected = expected_arrays()
    names = NO_TYPE_NAMES.get(name, set(expected))
    path = written(tmp_path, (GOLDEN / name).read_bytes(), "no suffix at all")
    given = load(path)
    assert_same(
        {key: given[key] for key in expected if key in names},
        {key: value for key, value in expected.items() if key in names},
    )
    assert set(given) == names
    assert load_config(path) is None


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_arrays_in_every_protocol(protocol, tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        "double": rng.standard_normal((3, 4)),
        "large": rng.standard_normal((60, 50)).astype(np.float32),
        "fortran": np.asfortranarray(rng.standard_normal((40, 30))),
        "zero_d": np.array(2.5, np.float16),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
        "backwards": np.arange(9)[::-2].copy(),
        "bytes": np.arange(256, dtype=np.uint8),
    }
    tree = {**arrays, "scalar": np.float32(3.5), "big_endian": np.arange(5, dtype=">i4")}
    given = load(written(tmp_path, pickle.dumps(collections.OrderedDict(tree), protocol)))
    assert_same(
        given,
        {**arrays, "scalar": np.array(3.5, np.float32), "big_endian": np.arange(5, dtype=np.int32)},
    )


def test_what_training_programs_store_beside_the_weights_is_harmless(tmp_path):
    tree = {
        "state_dict": {"w": np.ones(2)},
        "args": argparse.Namespace(lr=1e-4),
        "defaults": collections.defaultdict(list, {1: [2]}),
        "milestones": collections.Counter("aab"),
        "set": {1, 2},
        "frozen": frozenset([3]),
        "complex": 1 + 2j,
        "text": "é" * 9000,
        "bytes": b"x" * 9000,
        "array": bytearray(b"y" * 9000),
        "long": 2**200,
        "negative": -1,
        "float": 1e-300,
        "none": None,
        ("a", 1): (True, [False]),
    }
    for protocol in range(2, 6):
        assert_same(load(written(tmp_path, pickle.dumps(tree, protocol))), {"w": np.ones(2)})


def rezipped(change=lambda name, data: (name, data), compression=zipfile.ZIP_STORED):
    target = io.BytesIO()
    with zipfile.ZipFile(GOLDEN / "torch_zip.ckpt") as source, zipfile.ZipFile(
        target, "w", compression
    ) as archive:
        for name in source.namelist():
            item = change(name, source.read(name))
            if item is not None:
                archive.writestr(*item)
    return target.getvalue()


@pytest.mark.parametrize("prefix", ("", "archive/", "epoch=3-step=10/"))
@pytest.mark.parametrize("compression", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
def test_torch_archives_under_any_prefix(tmp_path, prefix, compression):
    data = rezipped(lambda name, data: (prefix + name.partition("/")[2], data), compression)
    assert_same(load(written(tmp_path, data)), expected_arrays())


def test_torch_archives_written_without_checksums(tmp_path):
    data = bytearray((GOLDEN / "torch_zip.ckpt").read_bytes())
    with zipfile.ZipFile(GOLDEN / "torch_zip.ckpt") as archive:
        for entry in archive.infolist():
            data[entry.header_offset + 14 : entry.header_offset + 18] = bytes(4)
    position = data.find(b"PK\x01\x02")
    while position >= 0:
        data[position + 16 : position + 20] = bytes(4)
        position = data.find(b"PK\x01\x02", position + 4)
    assert_same(load(written(tmp_path, bytes(data))), expected_arrays())


def test_files_saved_from_a_gpu(tmp_path):
    legacy = (GOLDEN / "torch_legacy.pth").read_bytes()
    data = legacy.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    assert data.count(b"torch.cuda") and data != legacy
    assert_same(load(written(tmp_path, data)), expected_arrays())


def test_compressed_npz(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **expected_arrays())
    assert_same(load(tmp_path / "a.npz"), expected_arrays())


# Where the weights are
# ----------------------------------------------------------------------------------------------


def one(value):
    return np.full(2, value, np.float32)


def tree(text):
    """Arrays of one value by name, "a.w=1 b=2", and entries that hold others, "ema{a.w=2}"."""
    result, levels, key = {}, [], ""
    for word in text.replace("{", " { ").replace("}", " } ").split():
        if word == "{":
            levels.append(result)
            result[key] = result = {}
        elif word == "}":
            result = levels.pop()
        else:
            key, _, value = word.partition("=")
            if value:
                result[key] = one(float(value))
    return result


UNDOTTED = {
    **tree("model.net.0.w=1 model.net.1.b=1 model_ema.net0w=2 model_ema.net1b=2 betas=0"),
    "model_ema.decay": np.float32(0.9),
    "model_ema.num_updates": np.int32(5),
}
COUNTERS = {"initted": np.bool_(True), "step": np.int64(1)}
ANY = {"initted": None, "step": None}
NET = "model.net.0.w={0} model.net.1.b={0} betas=0"
FIRST_STAGE = "first_stage_model.enc.w=1 first_stage_model.model_ema.encw=2 x=0"
ENCODER = "first_stage_model.enc.w={} x=0"
PIXNERD = "state_dict{denoiser.w=1 ema_denoiser.w=2 diffusion_trainer.proj.0.0.weight=0}"
OPTIMIZER = {"optimizer": {"state": {0: tree("m=9")}}}
QUANTISER = "vq.embed=1 vq.ema_embed=2"
CONVENTIONS = {
    # name: (tree, arrays with the moving average, arrays of the model); None: refused
    "flat": ({**tree("w=1"), "epoch": 3}, "w=1", "w=1"),
    "state_dict": ({**tree("state_dict{w=1}"), "epoch": 3}, "w=1", "w=1"),
    "entries": (tree("model{w=1} ema{w=2} opt{m=9}"), "w=2", "w=1"),
    "nested entries": (tree("model{state_dict{w=1}} ema{module{w=2}}"), "w=2", "w=1"),
    "one unknown entry": ({**tree("unet{w=1}"), **OPTIMIZER}, "w=1", "w=1"),
    "several unknown entries": (tree("first{w=1} second{w=2}"), None, None),
    "data parallel": (tree("module.a.w=1 module.b=1"), "a.w=1 b=1", "a.w=1 b=1"),
    "compiled inside": (tree("a._orig_mod.w=1 b=1"), "a.w=1 b=1", "a.w=1 b=1"),
    "compiled and parallel": (tree("_orig_mod.module.w=1"), "w=1", "w=1"),
    "lightning": (tree("state_dict{model.a.w=1 model.b=1}"), "a.w=1 b=1", "a.w=1 b=1"),
    "some under model": (tree("model.w=1 head=1"), "model.w=1 head=1", "model.w=1 head=1"),
    "latent-diffusion": ({"state_dict": UNDOTTED}, NET.format(2), NET.format(1)),
    "averaged first stage": (tree(FIRST_STAGE), ENCODER.format(2), ENCODER.format(1)),
    "ema_ beside": (
        tree("denoiser.w=1 ema_denoiser.w=2 proj.w=0"),
        "denoiser.w=2 proj.w=0",
        "denoiser.w=1 proj.w=0",
    ),
    "PixNerd": (tree(PIXNERD), "w=2", "w=1"),
    "PixNerd's model": (tree("state_dict{denoiser.w=1 denoiser.b=1}"), "w=1 b=1", "w=1 b=1"),
    "PixNerd's average": (tree("state_dict{ema_denoiser.w=2}"), "w=2", None),
    "ema. beside": (tree("w=1 ema.w=2"), "w=2", "w=1"),
    "online and ema": (
        {**tree("online_model.w=1 ema_model.w=2"), **COUNTERS},
        {**tree("online_model.w=2"), **ANY},
        {**tree("online_model.w=1"), **ANY},
    ),
    "only ema": (tree("ema.w=2"), "w=2", None),
    "a quantiser's own average": (tree(QUANTISER), QUANTISER, QUANTISER),
    "optimiser alone": ({"state": {0: tree("exp_avg=1")}, "param_groups": []}, None, None),
    "no arrays": ({"epoch": 3}, None, None),
    "a list": ([one(1)], None, None),
    "an array": (one(1), None, None),
}


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("weights", ("ema", "model"))
def test_where_programs_put_their_weights(name, weights, tmp_path):
    stored, ema, model = CONVENTIONS[name]
    path = written(tmp_path, pickle.dumps(stored))
    wanted = ema if weights == "ema" else model
    if wanted is None:
        refusal(path, weights=weights)
        return
    wanted = tree(wanted) if isinstance(wanted, str) else wanted
    given = load(path, weights)
    assert set(given) == set(wanted)
    assert all((given[key] == value).all() for key, value in wanted.items() if value is not None)


def test_an_unknown_choice_of_weights(tmp_path):
    with pytest.raises(ValueError, match="'ema' or 'model'"):
        load(written(tmp_path, pickle.dumps({"w": one(1)})), "best")


# What is no weight file
# ---------------------------------------------------------------------------------------------

STRANGERS = {
    "html": (
        b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>",
        "web page",
    ),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b\x08" + bytes(30), "gzip"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "tar archive"),
    "empty": (b"", "empty"),
    "text": (b"# weights of the network\n", "is not a weight file"),
    "json": (b'{"weight_map": {}}', "is not a weight file"),
    "one array": (b"\x93NUMPY\x01\x00" + bytes(30), "single NumPy array"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_weight_file_is_called_by_its_name(name, tmp_path):
    data, word = STRANGERS[name]
    path = written(tmp_path, data, "weights.pth")
    assert word in refusal(path)
    with pytest.raises(CheckpointError, match=word):
        load_config(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pkl does not exist; expected"):
        load(tmp_path / "nowhere.pkl")
    assert "is a folder" in refusal(tmp_path)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("unet.pth", b"x")
    assert "without weights" in refusal(tmp_path / "a.zip")
    assert "unet.pth" in refusal(tmp_path / "a.zip")


# Hostile pickles
# --------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of `function`, whatever that is."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def hostile(marker):
    """{case: (pickle, what its refusal names)}; each would create `marker` if it were run."""
    command = f"touch {marker}"
    quoted = command.encode()
    cases = {
        "posix.system": {
            "os.system": pickle.dumps({"w": one(1), "x": Call(os.system, command)}),
            "instance": b"(V%s\niposix\nsystem\n." % quoted,
            "object": b"(cposix\nsystem\nV%s\no." % quoted,
            "new object": b"\x80\x02cposix\nsystem\nV%s\n\x85\x81." % quoted,
            "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93V%s\n\x85R." % quoted,
            "through the memo": b"cposix\nsystem\np7\n0(g7\nV%b\ntg7\nV%b\n\x85R."
            % ((quoted,) * 2),
            "attribute of a container": ORDERED + b")R}X\x01\x00\x00\x00acposix\nsystem\nsb.",
        },
        "builtins.eval": {"eval": pickle.dumps([Call(eval, f"open({str(marker)!r}, 'w')")])},
        "__builtin__.exec": {
            "exec, protocol 0": pickle.dumps(Call(exec, f"open({str(marker)!r}, 'w')"), 0)
        },
        "numpy": {"numpy.load": pickle.dumps(Call(np.load, str(marker)))},
        "numpy.fromfile": {"numpy file": b"cnumpy\nfromfile\n(V%s\ntR." % str(marker).encode()},
        "jittor.load": {"jittor's variable": b"\x80\x02cjittor\nload\nV%s\n\x85R." % quoted},
        "'O8'": {
            "object array": pickle.dumps({"w": np.array([Call(os.system, command)], object)}),
            "object scalar": b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR.",
        },
        **HARMLESS,
    }
    return {name: (data, word) for word, group in cases.items() for name, data in group.items()}


ORDERED = b"\x80\x02ccollections\nOrderedDict\n"
# What its refusal names: {case: pickle}, of what is refused though it would do no harm.
HARMLESS = {
    "builtins.__import__": {"import": pickle.dumps(Call(__import__, "antigravity"))},
    "builtins.getattr": {"getattr": pickle.dumps(Call(getattr, "x", "join"))},
    "V4": {"structured dtype": pickle.dumps(np.zeros(2, [("a", "f4")]))},
    "numpy.matrix": {
        "array subclass": pickle.dumps(np.ones(2)).replace(b"\x8c\x07ndarray", b"\x8c\x06matrix")
    },
    "another class": {
        "not an array": b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n"
        b"(K\x00tC\x01btR."
    },
    "extension": {"extension": b"\x80\x02\x82\x01."},
    "sets attributes": {
        "state on a name": b"\x80\x02cnumpy\ndtype\n}X\x08\x00\x00\x00__call__K\x01sb.",
        "state on a list": b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.",
        "state on an array twice": pickle.dumps(np.ones(3), 2)[:-1] + b"}b.",
    },
    "pytorch_lightning.callbacks.ModelCheckpoint": {
        "lightning class called": b"cpytorch_lightning.callbacks\nModelCheckpoint\n)R."
    },
    "subprocess.Popen": {"module reference": b"csubprocess\nPopen\n."},
    "collections.OrderedDict.__init__": {
        "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."
    },
    "\\xe9": {"awkward name": b"c\xc3\xa9 x\r\ny\tz\n."},
    "outside of itself": {"persistent id": b"\x80\x02X\x01\x00\x00\x00aQ."},
    "torch.storage._load_from_bytes": {
        "nested torch file": b"ctorch.storage\n_load_from_bytes\nC\x01a\x85R."
    },
}
CASES = sorted(hostile(Path("marker")))


@pytest.mark.parametrize("name", CASES)
def test_hostile_pickles_are_refused_by_name_and_not_run(name, tmp_path):
    marker = tmp_path / "marker"
    data, word = hostile(marker)[name]
    modules = set(sys.modules)
    assert word in refusal(written(tmp_path, data, "weights.pkl"))
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    if name != "persistent id":
        assert word in refusal(tmp_path / "weights.pth")
    legacy = (GOLDEN / "torch_legacy.pth").read_bytes()
    start = legacy.index(b"little_endian")
    start = legacy.index(b".", legacy.index(b"type_sizes", start)) + 1
    refusal(written(tmp_path, legacy[:start] + data, "legacy.pth"))
    assert not marker.exists()
    assert not {"antigravity", "subprocess.Popen", "torch", "pytorch_lightning"} & (
        set(sys.modules) - modules
    )


def test_one_line_that_says_what_to_do(tmp_path):
    message = refusal(written(tmp_path, pickle.dumps(Call(os.system, "true"))))
    assert "posix.system" in message and "nothing was run" in message
    assert "export its weights alone" in message


CALLED_AGAIN = b"](" + b"h\x01h\x02R" * 300000 + b"e."
BOMBS = {
    "repeated encoding": b"\x80\x02c_codecs\nencode\nq\x010X"
    + (struct.pack("<I", 3000) + b"a" * 3000 + b"X\x06\x00\x00\x00latin1\x86q\x020" + CALLED_AGAIN),
    "repeated copies": b"\x80\x02c__builtin__\nlist\nq\x010]("
    + (b"K\x01" * 3000 + b"e\x85q\x020" + CALLED_AGAIN),
    "deep tuples as a key": b"}" + b"(" * 200000 + b"t" * 200000 + b"K\x01s.",
    "deep lists": b"]" * 200000 + b"a" * 199999 + b".",
    "huge memo index": b"K\x01r\xff\xff\xff\xff.",
    "huge length": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "huge integer": b"I" + b"9" * 100000 + b"\n.",
    "huge shape": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b"
    b"\x87R(K\x01\x8a\x07\xff\xff\xff\xff\xff\xff\x01X\x01\x00\x00\x00x\x86cnumpy\ndtype\n"
    b"X\x02\x00\x00\x00f4K\x00K\x01\x87R\x89C\x00tb.",
    "negative length": b"T\xff\xff\xff\xff.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_pickle_bombs_cost_little(name, tmp_path):
    start = time.process_time()
    head = b"" if BOMBS[name][:1] in b"\x80(]}" else b"\x80\x02"
    refusal(written(tmp_path, head + BOMBS[name]))
    assert time.process_time() - start < 5


def test_arrays_that_claim_more_than_the_file_holds(tmp_path):
    header = {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
    assert "outside" in refusal(written(tmp_path, safetensors(header, bytes(4))))
    large = np.zeros(1 << 20, np.float32)
    shared = pickle.dumps({f"w{number}": large for number in range(300)})
    assert "claim" in refusal(written(tmp_path, shared))


# Hostile archives
# --------------------------------------------------------------------------------------------------


def replaced(target, value):
    return rezipped(lambda name, data: (name, value if name.endswith(target) else data))


def test_torch_archives_that_do_not_add_up(tmp_path):
    assert "big-endian" in refusal(written(tmp_path, replaced("byteorder", b"big")))
    assert "storage" in refusal(written(tmp_path, replaced("data/0", bytes(92))))
    less = rezipped(lambda name, data: None if name.endswith("data/0") else (name, data))
    assert "lacks" in refusal(written(tmp_path, less))
    more = rezipped(lambda name, data: (name, data + b"." if name.endswith("data.pkl") else data))
    assert "behind its end" in refusal(written(tmp_path, more))
    legacy = (GOLDEN / "torch_legacy.pth").read_bytes()
    assert "behind its last storage" in refusal(written(tmp_path, legacy + b"\0"))
    position = legacy.index(b"little_endian")
    big = legacy[:position] + legacy[position:].replace(b"\x88", b"\x89", 1)
    assert "big-endian" in refusal(written(tmp_path, big))


def test_zip_bombs_are_refused_before_they_are_unpacked(tmp_path):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", b"\x93NUMPY" + bytes(1000))
    data = bytearray(target.getvalue())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1 << 31)
    assert "impossible size" in refusal(written(tmp_path, bytes(data)))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.npy", bytes(5000))
        archive.filelist += archive.filelist * 3
    assert refusal(written(tmp_path, target.getvalue()))


def test_npz_of_objects_and_texts(tmp_path):
    np.savez(tmp_path / "objects.npz", w=np.array([Call(os.system, "true")], dtype=object))
    assert "'O'" in refusal(tmp_path / "objects.npz")
    np.savez(tmp_path / "texts.npz", w=np.array(["a"]))
    assert "'U1'" in refusal(tmp_path / "texts.npz")
    np.savez(tmp_path / "fields.npz", w=np.zeros(2, [("a", "f4")]))
    assert "plain numbers" in refusal(tmp_path / "fields.npz")


def safetensors(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(start, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "header, size, word",
    (
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "holes"),
        ({"a": entry(0, 8, (2,)), "b": entry(4, 12, (2,))}, 12, "overlap"),
        ({"a": entry(0, 4)}, 8, "promises"),
        ({"a": entry(0, 40, (10,))}, 8, "promises"),
        ({"a": entry(4, 0)}, 4, "overlap"),
        ({"a": entry(0, 8)}, 8, "has 8 bytes"),
        ({"a": entry(0, 4, dtype="F8_E4M3")}, 4, "F8_E4M3"),
        ({"a": {}}, 4, "header"),
        ({"a": entry(0, 4, (-1,))}, 4, "shape"),
        ({"a": entry(0, 4, ("1",))}, 4, "shape"),
        ([1], 4, "not a weight file"),
        (b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 4)).encode(),) * 2), 4, "header"),
        (b'{"a": ' + b"[" * 50000, 4, "header"),
        (b"{\xff}", 4, "header"),
        ({"__metadata__": {"jseg": "nonsense"}, "a": entry(0, 4)}, 4, "record"),
    ),
)
def test_safetensors_whose_header_is_wrong(header, size, word, tmp_path):
    assert word in refusal(written(tmp_path, safetensors(header, bytes(size))))


# Damage
# --------------------------------------------------------------------------------------------------


def every_kind():
    kinds = {name: (GOLDEN / name).read_bytes() for name in FILES}
    kinds.update({"own" + suffix: own_file(suffix) for suffix in (".safetensors", ".npz", ".pkl")})
    return kinds


KINDS = [*FILES, "own.safetensors", "own.npz", "own.pkl"]


@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_file_is_never_read(name, tmp_path):
    data = every_kind()[name]
    # A Jittor file without exactly its checksum is a whole pickle, as other programs write it; ours
    # say that they are sealed.
    whole = {len(data) - 28} if name == "jittor_vars.pkl" else set()
    for length in sorted(
        {*range(0, len(data), 7), *range(max(0, len(data) - 300), len(data)), *range(200)} - whole
    ):
        message = refusal(written(tmp_path, data[:length]))
        assert message.startswith(str(tmp_path))


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_gives_arrays_or_one_error(name, tmp_path):
    data = every_kind()[name]
    path = written(tmp_path, data)
    original = load(path)
    checked = name in ("torch_zip.ckpt", "jittor_vars.pkl") or name.startswith("own.")
    rng = np.random.default_rng(2)
    for _ in range(250):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[position] ^= 1 << rng.integers(8)
        try:
            given = load(written(tmp_path, bytes(damaged)))
        except CheckpointError as error:
            assert "\n" not in str(error)
            continue
        assert sum(array.nbytes for array in given.values()) < 1 << 24
        if checked and set(given) == set(
            original
        ):  # a damaged name is what load_into is strict for
            assert all(np.array_equal(given[key], original[key]) for key in original), (
                "a checksum did not catch the damage"
            )


def test_checksums_name_what_is_damaged(tmp_path):
    data = bytearray(own_file(".safetensors"))
    data[-1] ^= 1
    assert "checksum" in refusal(written(tmp_path, bytes(data)))
    data = bytearray(own_file(".pkl"))
    data[-60] ^= 1
    assert "SHA-1" in refusal(written(tmp_path, bytes(data)))
    data = bytearray((GOLDEN / "torch_zip.ckpt").read_bytes())
    start = data.index(expected_arrays()["f32"].tobytes())
    data[start] ^= 1
    assert "array f32" in refusal(written(tmp_path, bytes(data)))
