"""The forms of a compiled operator that must agree: compiled, plain Jittor, and its CUDA source on
the simulated GPU.
"""

from support import simulated_gpu

from jseg.nn import kernels

FORMS = ("compiled", "twin", "CUDA source")


def choose(form, monkeypatch, module):
    monkeypatch.setattr(kernels, "FASTER", {"cpu": () if form == "twin" else (module.NAME,)})
    monkeypatch.delenv("JSEG_FUSED", raising=False)
    if form == "CUDA source":
        simulated_gpu.install(monkeypatch, module)
