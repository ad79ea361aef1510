"""Install the distribution jseg-diffusion, imported as jseg."""

import os
import re

from setuptools import find_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


setup(
    # the name jseg belongs to another project, and Jittor/JSeg installs a distribution of that name
    name="jseg-diffusion",
    version=re.search(r'^__version__ = "([^"]+)"', read("jseg/__init__.py"), re.M).group(1),
    description="Images from semantic maps (IIDM) and semantic maps from images (FlowSeg), in Jittor",
    long_description=read("README.md") if os.path.exists(os.path.join(HERE, "README.md")) else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["jseg", "jseg.*"]),
    package_data={
        "jseg": ["weights/*", "machine/nvcc.in", "machine/include/*.h", "machine/include/cub/*"]
    },
    python_requires=">=3.8,<3.13",  # NumPy 1, which Jittor needs, has no wheels for 3.13
    install_requires=[
        "jittor>=1.3.11,<1.4",  # 1.3.11 is what jseg/runtime.py knows the traps of
        # oneDNN: convolutions on the CPU are 50 times faster with it; nothing is downloaded
        "jittor_offline>=0.0.7",
        "numpy>=1.22,<2",  # with NumPy 2, Jittor 1.3.11 computes wrong numbers without an error
        "pillow>=9.1",  # Image.Resampling
        # 4.12 wants NumPy 2; without "headless" it also wants libGL, which a bare machine lacks
        "opencv-python-headless>=4.5,<4.12",
        "scipy>=1.7",
        "tqdm>=4.60",
        "pytest>=7",  # `make test`, and anyone who wants to know whether an install is whole
    ],
    extras_require={"plots": ["matplotlib>=3.5"]},  # the curves of a training; `make` installs it
    entry_points={"console_scripts": ["jseg = jseg.__main__:main"]},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
    ],
)
