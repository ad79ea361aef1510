"""The forms of a compiled operator that must agree: compiled for the CPU, and plain Jittor.

Its CUDA source is tested in tests/parity/test_cuda_sources.py.
"""

from jseg.nn import kernels

FORMS = ("compiled", "twin")


def choose(form, monkeypatch, module):
    monkeypatch.setattr(kernels, "FASTER", {"cpu": () if form == "twin" else (module.NAME,)})
    monkeypatch.delenv("JSEG_FUSED", raising=False)
