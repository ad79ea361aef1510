"""jseg/machine/cuda_toolkit.py: toolkits found wherever they lie, and homes that hold what Jittor
looks for; on toolkits made up for the test.
"""

import os
import subprocess
import threading

import pytest
from support.fake_cuda import CUDNN_8, HEADERS, PARTS, bare, cudnn, toolkit, write  # noqa: F401

from jseg.machine import cuda_home, cuda_toolkit


def found(nvcc):
    return cuda_toolkit.toolkit(str(nvcc))


def packages(site, major=13):
    """NVIDIA's packages on PyPI for CUDA 13, in one folder, but for cuDNN; their libraries have
    versioned names alone.
    """
    toolkit(site / f"nvidia/cu{major}", release=f"{major}.0.88", libraries=())
    for name in PARTS:
        write(site / f"nvidia/cu{major}/lib/lib{name}.so.{major}")
    cudnn(site / "nvidia/cudnn", versioned_only=True)
    write(site / f"nvidia_cudnn_cu{major}-9.2.1.dist-info/METADATA")


# --- what is found --------------------------------------------------------------------------------


def test_compilers_are_tried_in_order_and_each_once(bare, monkeypatch):
    first, old, new = (toolkit(bare / name) for name in ("on_path", "cuda-11.8", "cuda-12.4"))
    packages(bare / "site")
    (bare / "cuda").symlink_to("cuda-12.4")
    chosen = toolkit(bare / "chosen")
    monkeypatch.setattr(cuda_toolkit.shutil, "which", lambda name: str(first))
    monkeypatch.setenv("CUDA_HOME", str(bare / "chosen"))
    assert cuda_toolkit.compilers() == [
        str(path)
        for path in (first, chosen, bare / "cuda/bin/nvcc", old, bare / "site/nvidia/cu13/bin/nvcc")
    ]
    assert os.path.samefile(bare / "cuda/bin/nvcc", new)


def test_a_script_that_calls_nvcc_leads_to_the_toolkit(bare):
    nvcc = toolkit(bare / "cuda", release="12.4.131")
    script = write(bare / "bin/nvcc", f'#!/bin/sh\nexec {nvcc} "$@"\n')
    script.chmod(0o755)
    kit = found(script)
    assert (kit.nvcc, kit.top, kit.version, kit.cudnn) == (
        str(nvcc),
        str(bare / "cuda"),
        (12, 4, 131),
        (),
    )


def test_an_nvcc_that_does_not_run_is_none(bare):
    broken = write(bare / "cuda/bin/nvcc", "#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    assert found(broken) is None


def test_what_is_missing_is_named_with_the_command_that_brings_it(bare):
    nvcc = toolkit(
        bare / "cuda", headers=["cuda_runtime.h", "cublas_v2.h", "cufft.h", "cusparse.h"]
    )
    line = cuda_toolkit.missing(found(nvcc))
    assert "curand and cuDNN's header and library and CUB not found" in line
    assert line.endswith("-m pip install 'cuda-toolkit[curand,cccl]==13.0.*' nvidia-cudnn-cu13")
    cudnn(bare / "site/nvidia/cudnn")
    assert "cuDNN's" in cuda_toolkit.missing(found(nvcc)), "which CUDA these are for is not known"
    write(bare / "site/nvidia_cudnn_cu12-9.2.1.dist-info/METADATA")
    assert "cuDNN's" in cuda_toolkit.missing(found(nvcc)), "these are for CUDA 12"
    write(bare / "site/nvidia_cudnn_cu13-9.2.1.dist-info/METADATA")
    for name in HEADERS:
        write(bare / "cuda/include" / name)
    assert cuda_toolkit.missing(found(nvcc)) == "" and found(nvcc).cudnn == (9, 2, 1)


def test_a_header_without_its_library_and_the_reverse_are_missing(bare):
    nvcc = toolkit(bare / "cuda", libraries=PARTS[:-1])
    cudnn(bare / "usr", lib="lib64")
    assert cuda_toolkit.missing(found(nvcc)).startswith("cusparse not found")
    os.remove(bare / "usr/lib64/libcudnn.so.9")
    os.remove(bare / "usr/lib64/libcudnn.so")
    assert cuda_toolkit.missing(found(nvcc)).startswith(
        "cusparse and cuDNN's header and library not found"
    )


@pytest.mark.parametrize(
    "release, version, stock",
    [
        ("11.8.89", "8.9.7", True),
        ("12.4.131", "8.9.7", True),
        ("12.4.131", "9.2.1", False),
        ("13.0.88", "9.2.1", False),
        ("10.2.89", "8.9.7", False),
    ],
)
def test_jittor_alone_builds_on_cuda_11_and_12_with_cudnn_8(bare, release, version, stock):
    nvcc = toolkit(bare / "cuda", release)
    cudnn(bare / "cuda", version, lib="lib64")
    assert cuda_toolkit.jittor_finds_all(found(nvcc)) is stock


def test_jittor_takes_versioned_names_for_cuda_11_only(bare):
    for release, stock in (("11.8.89", True), ("12.4.131", False)):
        nvcc = toolkit(bare / f"cuda-{release}", release)
        cudnn(bare / f"cuda-{release}", "8.9.7", versioned_only=True, lib="lib64")
        assert cuda_toolkit.jittor_finds_all(found(nvcc)) is stock


# --- homes ----------------------------------------------------------------------------------------


def names(home, folder):
    return {
        name[len(folder) + 1 :]
        for name in (*home.texts, *home.links)
        if name.startswith(folder + "/")
    }


def test_a_home_for_cuda_13_from_packages_alone(bare):
    packages(bare / "site")
    kit = found(bare / "site/nvidia/cu13/bin/nvcc")
    assert cuda_toolkit.missing(kit) == "" and not cuda_toolkit.jittor_finds_all(kit)
    home = cuda_home.plan(kit, [90])
    assert os.path.basename(home.folder).startswith("cuda13.0.88-cudnn9.2.1-sm90-")
    assert home.folder.startswith(str(bare / "home/.cache/jseg/cuda-home"))
    texts = "bin/nvcc include/cudnn.h include/cuda_runtime.h include/cub/cub.cuh".split()
    assert set(home.texts) == set(texts), "npp.h is there"
    assert {f"lib{name}.so" for name in PARTS} | {
        "libcudnn.so",
        "libcudnn_ops.so.9",
        *CUDNN_8,
    } <= names(home, "lib64")
    assert (
        len({home.links[f"lib64/{name}"] for name in (*CUDNN_8, "libcudnn.so", "libcudnn.so.9")})
        == 1
    )
    nvcc = cuda_home.build(home)
    assert home.is_whole() and nvcc == home.nvcc == os.path.realpath(nvcc), (
        "Jittor follows links away from the home"
    )
    assert subprocess.check_output(
        [nvcc, "-std=c++14", "-arch=compute_90", "-code=sm_90", "-DX=a b"], universal_newlines=True
    ) == ("-std=c++17\n-arch=compute_90\n-code=sm_90\n-DX=a b\n")


def test_a_home_for_cuda_12_changes_cudnn_alone(bare):
    nvcc = toolkit(bare / "cuda", "12.4.131", headers=[name for name in HEADERS if name != "npp.h"])
    cudnn(bare / "usr", lib="lib64")
    home = cuda_home.plan(found(nvcc), [80])
    assert set(home.texts) == {"bin/nvcc", "include/cudnn.h", "include/npp.h"}
    assert home.links["include/cub"] == str(bare / "cuda/include/cub")
    assert "include/cudnn.h" not in home.links
    assert home.links["include/real/cudnn.h"] == str(bare / "usr/include/cudnn.h")
    cuda_home.build(home)
    assert (
        subprocess.check_output([home.nvcc, "-std=c++14"], universal_newlines=True)
        == "-std=c++14\n"
    )


def test_libraries_of_another_version_are_passed_over(bare):
    """Both cuDNN 8 and 9 in the system's folder, the header being 9's, and the libraries of another
    CUDA beside them.
    """
    nvcc = toolkit(bare / "cuda", libraries=PARTS[1:])
    cudnn(bare / "usr", "8.9.7", lib="lib64")
    cudnn(bare / "usr", "9.2.1", versioned_only=True, lib="lib64")
    for version in (12, 13):
        write(bare / f"usr/lib64/libcudart.so.{version}")
    links = cuda_home.plan(found(nvcc), [90]).links
    assert links["lib64/libcudnn.so"].endswith("libcudnn.so.9")
    assert links["lib64/libcudart.so"].endswith("libcudart.so.13")
    assert not [target for target in links.values() if target.endswith((".so.8", ".so.12"))]


@pytest.mark.parametrize(
    "devices, virtual, real",
    [
        ([80], "90", "sm_90"),
        ([90], "90", "sm_90"),
        ([120], "120", "sm_120"),
        ([100, 100, 120], "100", "sm_100,sm_120"),
        ([90, 120], "90", "sm_90,sm_120"),
    ],
)
def test_the_newest_devices_get_their_own_code(bare, devices, virtual, real):
    """Jittor asks for 9.0 where a device is newer, and compiles no other."""
    nvcc = toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    home = cuda_home.plan(found(nvcc), devices)
    cuda_home.build(home)
    asked = ["-arch=compute_90", "-code=sm_90", "-arch=compute_80", "-code=sm_80"]
    given = subprocess.check_output([home.nvcc, *asked], universal_newlines=True).split()
    assert given == [f"-arch=compute_{virtual}", f"-code={real}", *asked[2:]]


def test_another_toolkit_cudnn_device_or_header_of_ours_is_another_home(bare, monkeypatch):
    """Jittor does not look into headers named in angle brackets: only a new path makes it compile
    again.
    """
    nvcc = toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    folders = [cuda_home.plan(found(nvcc), [90]).folder] * 2
    assert len(set(folders)) == 1
    folders.append(cuda_home.plan(found(nvcc), [80]).folder)
    cudnn(bare / "other/nvidia/cudnn", versioned_only=True)
    monkeypatch.setattr(cuda_home, "OWN", str(bare / "own"))
    for name in ("nvcc.in", "include/cudnn.h", "include/cuda_runtime.h", "include/cub/cub.cuh"):
        write(bare / "own" / name, "changed")
    folders.append(cuda_home.plan(found(nvcc), [90]).folder)
    write(
        bare / "cuda/include/cudnn_version.h",
        "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 9\n#define CUDNN_PATCHLEVEL 0\n",
    )
    folders.append(cuda_home.plan(found(nvcc), [90]).folder)
    assert len(set(folders)) == 4


def test_a_home_is_built_once_healed_and_shared(bare):
    nvcc = toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    home = cuda_home.plan(found(nvcc), [90])
    workers = [threading.Thread(target=cuda_home.build, args=(home,)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    parent = os.path.dirname(home.folder)
    assert home.is_whole() and os.listdir(parent) == [os.path.basename(home.folder)]
    made = os.stat(home.folder).st_mtime_ns
    assert cuda_home.build(home) == home.nvcc and os.stat(home.folder).st_mtime_ns == made
    os.remove(os.path.join(home.folder, "lib64/libcublas.so"))
    assert not home.is_whole()
    cuda_home.build(home)
    assert home.is_whole() and os.listdir(parent) == [os.path.basename(home.folder)]


def test_a_cache_that_cannot_be_written_is_an_oserror(bare):
    nvcc = toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    write(bare / "home/.cache/jseg", "a file")
    with pytest.raises(OSError):
        cuda_home.build(cuda_home.plan(found(nvcc), [90]))


def test_the_toolkit_is_left_alone(bare):
    nvcc = toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    before = sorted(str(path) for path in bare.rglob("*"))
    home = cuda_home.plan(found(nvcc), [90])
    assert sorted(str(path) for path in bare.rglob("*")) == before, "planning writes nothing"
    cuda_home.build(home)
    after = sorted(
        str(path) for path in bare.rglob("*") if not str(path).startswith(str(bare / "home"))
    )
    assert after == before


def test_nccl_is_found_as_a_pair(bare):
    nvcc = toolkit(bare / "cuda")
    cudnn(bare / "cuda", lib="lib64")
    kit = found(nvcc)
    assert cuda_home.nccl(kit, None) is None
    assert cuda_home.nccl(kit, cuda_home.plan(kit, [90])) is None
    write(bare / "site/nvidia/nccl/include/nccl.h")
    write(bare / "site/nvidia/nccl/lib/libnccl.so.2")
    write(bare / "site/nvidia_nccl_cu13-2.27.dist-info/METADATA")
    kit = found(nvcc)
    home = cuda_home.plan(kit, [90])
    assert cuda_home.nccl(kit, home) == (
        str(bare / "site/nvidia/nccl/include"),
        home.folder + "/lib64",
    )
    assert cuda_home.nccl(kit, None) is None, "Jittor alone wants libnccl.so, not .so.2"
    write(bare / "site/nvidia/nccl/lib/libnccl.so")
    assert cuda_home.nccl(kit, None) == tuple(
        str(bare / f"site/nvidia/nccl/{name}") for name in ("include", "lib")
    )


# --- our headers ----------------------------------------------------------------------------------


def test_convolutions_of_halves_add_up_in_float(tmp_path):
    """cudnn.h of ours on a stand-in for cuDNN 9 that remembers the type it was asked for; what is
    gone from it compiles and refuses.
    """
    write(
        tmp_path / "real/cudnn.h",
        """
        #define CUDNN_MAJOR 9
        enum cudnnStatus_t { CUDNN_STATUS_SUCCESS, CUDNN_STATUS_NOT_SUPPORTED };
        enum cudnnDataType_t {
            CUDNN_DATA_FLOAT, CUDNN_DATA_DOUBLE, CUDNN_DATA_HALF, CUDNN_DATA_BFLOAT16
        };
        enum cudnnConvolutionMode_t { CUDNN_CROSS_CORRELATION };
        typedef int* cudnnConvolutionDescriptor_t;
        inline cudnnStatus_t cudnnSetConvolutionNdDescriptor(
            int* seen, int, const int*, const int*, const int*,
            cudnnConvolutionMode_t, cudnnDataType_t type
        ) {
            *seen = type;
            return CUDNN_STATUS_SUCCESS;
        }
    """,
    )
    source = write(
        tmp_path / "program.cpp",
        """
        #include <cudnn.h>
        #include <cstdio>
        int main() {
            int seen, n[2] = {1, 1};
            for (int type = 0; type < 4; type++) {
                cudnnSetConvolutionNdDescriptor(
                    &seen, 2, n, n, n, CUDNN_CROSS_CORRELATION, (cudnnDataType_t)type
                );
                std::printf("%d", seen);
            }
            std::printf(" %d", cudnnRNNForwardTraining(1, "two", n) == CUDNN_STATUS_NOT_SUPPORTED);
        }
    """,
    )
    program = str(tmp_path / "program")
    include = os.path.join(cuda_home.OWN, "include")
    subprocess.run(
        ["g++", "-std=c++14", f"-I{include}", f"-I{tmp_path}", str(source), "-o", program],
        check=True,
    )
    assert subprocess.check_output([program], universal_newlines=True) == "0100 1"


def test_limits_of_npp_are_those_of_the_integers(tmp_path):
    source = write(
        tmp_path / "limits.cpp",
        """
        #include "npp.h"
        #include <limits>
        template <class T> constexpr bool are(T least, T largest) {
            using limits = std::numeric_limits<T>;
            return least == limits::min() && largest == limits::max();
        }
        static_assert(are<unsigned>(NPP_MIN_32U, NPP_MAX_32U), "");
        static_assert(are<int>(NPP_MIN_32S, NPP_MAX_32S), "");
        static_assert(are<unsigned long long>(NPP_MIN_64U, NPP_MAX_64U), "");
        static_assert(are<long long>(NPP_MIN_64S, NPP_MAX_64S), "");
    """,
    )
    include = os.path.join(cuda_home.OWN, "include")
    subprocess.run(["g++", "-std=c++14", "-fsyntax-only", f"-I{include}", str(source)], check=True)


def test_our_files_are_installed_with_the_package():
    """setup.py's package_data names every file of jseg/machine that is no module."""
    import fnmatch
    import re

    with open(
        os.path.join(os.path.dirname(cuda_home.OWN), os.pardir, "setup.py"), encoding="utf-8"
    ) as file:
        patterns = re.findall(r'"(machine/[^"]+)"', file.read())
    files = [
        os.path.relpath(os.path.join(folder, name), os.path.dirname(cuda_home.OWN))
        for folder, _, members in os.walk(cuda_home.OWN)
        for name in members
        if not name.endswith((".py", ".pyc"))
    ]
    assert len(files) == 6
    assert [
        name
        for name in files
        if not any(
            fnmatch.fnmatch(name, pattern) and name.count("/") == pattern.count("/")
            for pattern in patterns
        )
    ] == []


def test_the_page_tells_every_file_variable_and_case():
    import re

    from jseg.machine import cuda, environment

    root = os.path.dirname(os.path.dirname(cuda_home.OWN))
    with open(os.path.join(root, "docs", "cuda.md"), encoding="utf-8") as file:
        page = file.read()
    for folder, _, members in os.walk(cuda_home.OWN):
        assert [
            name
            for name in members
            if not name.endswith((".py", ".pyc", ".sh"))
            and f"`{os.path.relpath(os.path.join(folder, name), root)}`" not in page
        ] == []
    with open(environment.__file__, encoding="utf-8") as file:
        ours = set(
            re.findall(
                r'"(nccl_\w+|use_\w+|nvcc_path|CUDA_VISIBLE_DEVICES|python_config_path)"',
                file.read(),
            )
        )
    assert len(ours) > 7
    assert [name for name in {*ours, *environment.SWITCHES} if f"`{name}`" not in page] == []
    cases = set(re.findall(r'"(\w+)"', cuda.Choice.__doc__.partition("nvcc: ")[0]))
    assert cases == set(
        re.findall(r"^\| (\w+) \|", page.partition("## What to install")[0], re.M)
    ) - {"case"}
    assert len(cases) == 4
