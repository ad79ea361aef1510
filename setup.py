"""Install the distribution jseg-diffusion, imported as jseg."""

import os
import re

from setuptools import find_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


setup(
    # not "jseg": that name belongs to another project, and Jittor/JSeg installs it too
    name="jseg-diffusion",
    version=re.search(r'^__version__ = "([^"]+)"', read("jseg/__init__.py"), re.M).group(1),
    description="Images from semantic maps (IIDM) and back (FlowSeg), in Jittor",
    long_description=read("README.md") if os.path.exists(os.path.join(HERE, "README.md")) else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["jseg", "jseg.*"]),
    package_data={
        "jseg": [
            "weights/*",
            "nn/*.h",
            "parity/cuda_emulation/*.h",
            "parity/cuda_emulation/*.cc",
            "parity/cuda_emulation/include/*",
            "parity/cuda_emulation/device/*.h",
            "parity/cuda_emulation/device/*.c*",
            "parity/cuda_emulation/device/include/*",
            "parity/cuda_emulation/device/include/cub/*",
            "machine/nvcc.in",
            "machine/compile_operator.sh",
            "machine/include/*.h",
            "machine/include/cub/*",
        ]
    },
    python_requires=">=3.8,<3.13",  # NumPy 1, which Jittor needs, has no wheels for 3.13
    install_requires=[
        "jittor>=1.3.11,<1.4",  # jseg/runtime.py works around the faults of 1.3.11
        # oneDNN, without a download at run time: it makes convolutions on the CPU 50 times faster
        "jittor_offline>=0.0.7",
        "numpy>=1.22,<2",  # with NumPy 2, Jittor 1.3.11 computes wrong numbers without an error
        "pillow>=9.1",  # the first with Image.Resampling
        # 4.12 needs NumPy 2; the variant without "headless" needs libGL, which servers lack
        "opencv-python-headless>=4.5,<4.12",
        "tqdm>=4.60",
    ],
    extras_require={
        # the curves of a training, `curve.png`; `make demo` and `make test` install it
        "plots": ["matplotlib>=3.5"],
        # `make test`; scipy has independent versions of formulas that the tests compare with, xdist
        # runs the tests in several processes: most of their time, one core is busy
        "test": ["pytest>=7", "pytest-xdist>=2.5", "scipy>=1.7"],
        # `make lint`: one exact version, because another one formats in another way
        "lint": ["ruff==0.17.6"],
        # `make cuda-emulate`: CUDA's headers, with which Jittor's CUDA code compiles without nvcc
        "emulation": [f"nvidia-cuda-{name}==13.0.*" for name in ("runtime", "crt", "cccl")],
    },
    entry_points={"console_scripts": ["jseg = jseg.__main__:main"]},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
    ],
)
