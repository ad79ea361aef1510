"""Compile checks for CUDA on a machine that needs nvcc and no GPU: Jittor's whole core and every
kernel that our networks ask for.

Jittor compiles a kernel when it is first run, so tiny networks are run, forward and backward, on a
pretended device (pretended_cuda.cpp of jseg/parity/cuda_emulation/device): the driver and the
libraries are empty shells, kernels are not launched, and their results are meaningless. Bring-up,
headers, names of libraries and nvcc are real. At the end every CUDA function that the compiled code
calls is looked up in the real libraries. None of this shows that a kernel computes the right
numbers.

Libraries and headers that the toolkit lacks may come from NVIDIA's packages on PyPI; what is
missing is named. Everything is in --folder, apart from the caches that jseg and Jittor use
otherwise. The first run takes half an hour to an hour, a repeated one half a minute.

  python benchmarks/cuda_compile.py       # for compute capability 8.0, 9.0, 10.0 and 12.0
  python benchmarks/cuda_compile.py --capabilities 90 --only unet
"""

import argparse
import concurrent.futures
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PRETENDED = os.path.join(
    os.path.dirname(HERE), "jseg", "parity", "cuda_emulation", "device", "pretended_cuda.cpp"
)
LIBRARIES = ("cudart", "cublas", "cudnn", "curand", "cufft", "cusparse")
RECORD = "compiled: "


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--capabilities",
        type=int,
        nargs="+",
        default=[90, 80, 100, 120],
        help="compute capabilities, as 80, 90, ...; the first is the pretended device's",
    )
    parser.add_argument(
        "--folder", default=os.path.join(os.path.expanduser("~"), ".cache", "jseg", "cuda-compile")
    )
    parser.add_argument("--only", nargs="+", help="groups of kernels; default: all")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_group(args.child)
    wanted = args.only or list(groups())
    unknown = [name for name in wanted if name not in groups()]
    if unknown:
        sys.exit(f"cuda_compile: no group {', '.join(unknown)}; choose from {', '.join(groups())}")
    from jseg.machine import cuda_toolkit

    args.folder = os.path.abspath(args.folder)
    os.makedirs(args.folder, exist_ok=True)
    real_home, os.environ["HOME"] = (
        os.path.expanduser("~"),
        args.folder,
    )  # a home and a cache of its own
    kit = next(iter(filter(None, map(cuda_toolkit.toolkit, cuda_toolkit.compilers()))), None)
    if kit is None:
        sys.exit("cuda_compile: no nvcc on PATH or in /usr/local/cuda: install a CUDA toolkit")
    lacking = cuda_toolkit.missing(kit)
    if lacking:
        sys.exit(f"cuda_compile: {lacking}")
    known = cuda_toolkit.capabilities(kit)
    capabilities = [number for number in args.capabilities if number in known]
    if not capabilities:
        sys.exit(
            f"cuda_compile: {kit.nvcc} compiles for none of {args.capabilities}; it knows {known}"
        )
    home = pretend(kit, capabilities[0], args.folder)
    environment = child_environment(args.folder, capabilities[0])
    print(
        f"nvcc {dotted(kit.version)} at {kit.nvcc}, cuDNN {dotted(kit.cudnn)}, Python "
        f"{sys.version.split()[0]}; pretended device: compute capability "
        f"{decimal(capabilities[0])}"
        + "".join(
            f"; not for {decimal(number)}, which this nvcc does not know"
            for number in args.capabilities
            if number not in known
        )
    )
    print(f"home {home.folder.replace(real_home, '~')}\n")
    print(
        "| what is run, forward and backward | kernels compiled by nvcc | time | result "
        "|\n|---|---|---|---|",
        flush=True,
    )
    failed = []
    for name in wanted:
        before, start = set(kernels(args.folder)), time.time()
        problem = run_child(name, environment)
        failed += [name] * bool(problem)
        new = len(set(kernels(args.folder)) - before)
        print(
            f"| {name}: {groups()[name].__doc__} | {new} | {time.time() - start:.0f} s | "
            f"{problem or 'ok'} |",
            flush=True,
        )
    compiled = kernels(args.folder)
    print(
        f"\n{len(compiled)} kernels for {decimal(capabilities[0])} in all; groups that failed: "
        f"{', '.join(failed) or 'none'}",
        flush=True,
    )
    if capabilities[1:]:
        refused = compile_again(compiled, capabilities[1:], args.folder)
        failed += refused
        print(
            f"{len(compiled) - len(refused)} of them compile for "
            f"{' and '.join(map(decimal, capabilities[1:]))} as well"
            + "".join(f"\nFAILED: {line}" for line in refused)
        )
    undefined = unresolved(args.folder, kit)
    print(
        "CUDA functions called by the compiled code and absent from the true libraries: "
        f"{', '.join(sorted(undefined)) or 'none'}"
    )
    return 1 if failed or undefined else 0


def decimal(capability):
    return f"{capability // 10}.{capability % 10}"


def dotted(numbers):
    return ".".join(map(str, numbers))


def child_environment(folder, capability):
    """Environment of the processes that run groups: the pretended driver, and no settings of the
    user's.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        if name not in ("nvcc_path", "cuda_archs", "nvcc_flags", "use_cuda")
    }
    path = os.pathsep.join(filter(None, (os.path.dirname(HERE), os.environ.get("PYTHONPATH"))))
    return dict(
        ours,
        HOME=folder,
        LD_LIBRARY_PATH=os.path.join(folder, "driver"),
        PRETENDED_CAPABILITY=str(capability),
        use_mkl="0",
        PYTHONPATH=path,
    )


def pretend(kit, capability, folder):
    """Build the home that jseg.runtime will find, with pretended libraries in it, and the
    driver.
    """
    from jseg.machine import cuda_home

    home = cuda_home.plan(kit, [capability])
    cuda_home.build(home)
    driver = os.path.join(folder, "driver")
    os.makedirs(driver, exist_ok=True)
    version = f"-DPRETENDED_VERSION={kit.version[0]}"
    compile_library(
        os.path.join(driver, "libcuda.so.1"), "libcuda.so.1", [version, "-DPRETENDED_cuda"], ""
    )
    include = os.path.join(home.folder, "include")
    for name in LIBRARIES:
        real = os.path.realpath(kit.family(name)[0])
        linked = [path for path, target in home.links.items() if target == real]
        soname = re.search(r"SONAME.*\[(.+)\]", output("readelf", "-d", real)).group(1)
        shells = "".join(
            f'extern "C" __attribute__((weak)) int {function}() {{ return 0; }}\n'
            for function in sorted(exported(real))
        )
        made = os.path.join(folder, "pretended", soname)
        os.makedirs(os.path.dirname(made), exist_ok=True)
        compile_library(made, soname, [version, f"-DPRETENDED_{name}", f"-I{include}"], shells)
        for path in linked:
            path = os.path.join(home.folder, path)
            os.remove(path)
            os.symlink(made, path)
    return home


def compile_library(path, soname, options, shells):
    weak, command = (
        path + ".weak.cpp",
        [
            "g++",
            "-std=c++14",
            "-shared",
            "-fPIC",
            "-fno-builtin",
            "-w",
            f"-Wl,-soname,{soname}",
            "-o",
            path,
        ],
    )
    with open(weak, "w") as file:
        file.write(shells)
    subprocess.run([*command, *options, PRETENDED, weak], check=True)


def exported(library):
    """The names of the functions that a library has for others, without C++'s own."""
    words = [line.split() for line in output("nm", "-D", "--defined-only", library).splitlines()]
    return {
        line[2].partition("@")[0]
        for line in words
        if len(line) == 3 and line[1] in "TW" and re.match(r"_*cu[a-z]+[A-Z_]", line[2])
    }


def kernels(folder):
    """{path: command} of what nvcc has compiled in the folder's cache."""
    found = {}
    for path in glob.glob(
        os.path.join(folder, ".cache", "jittor", "**", "jit", "*.key"), recursive=True
    ):
        with open(path, errors="replace") as file:
            command = file.readline().strip()
        if "/bin/nvcc" in command[:400]:
            found[path] = command
    return found


def compile_again(compiled, capabilities, folder):
    """Compile the kernels' device code for other compute capabilities; the names of those that
    fail, each with nvcc's line.
    """
    from jseg.machine import compilation

    place, targets = (
        os.path.join(folder, "again"),
        " ".join(f"-gencode arch=compute_{n},code=sm_{n}" for n in capabilities),
    )
    os.makedirs(place, exist_ok=True)

    def attempt(path):
        command = re.sub(
            r" -(?:arch|code)=\S+| -shared\b| -l\S+| -L\S+| -o \S+", " ", compiled[path]
        )
        digest = hashlib.md5((command + targets + hash_of(path)).encode()).hexdigest()
        done = os.path.join(place, digest)
        if os.path.exists(done):
            return ""
        ran = subprocess.run(
            f"{command} {targets} -fatbin -o {done}.fatbin",
            shell=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            errors="replace",
        )
        if ran.returncode:
            return f"{os.path.basename(path)}: {compilation.telling_line(ran.stdout)}"
        os.rename(f"{done}.fatbin", done)
        return ""

    with concurrent.futures.ThreadPoolExecutor(compilation.workers()) as pool:
        return [line for line in pool.map(attempt, sorted(compiled)) if line]


def hash_of(path):
    with open(path, "rb") as file:  # holds the hashes of a kernel's sources
        return hashlib.md5(file.read()).hexdigest()


def unresolved(folder, kit):
    """The CUDA functions that compiled code wants and that the true libraries lack."""
    true = set().union(
        *(exported(os.path.realpath(path)) for name in LIBRARIES for path in kit.family(name))
    )
    wanted, made = (
        set(),
        glob.glob(os.path.join(folder, ".cache", "jittor", "**", "*.so"), recursive=True),
    )
    for start in range(0, len(made), 100):
        names = re.findall(
            r"^\s+U (\w+)", output("nm", "-D", "--undefined-only", *made[start : start + 100]), re.M
        )
        wanted |= {
            name for name in names if re.match(r"_*cu(?:da|blas|dnn|rand|fft|sparse)[A-Z]", name)
        }
    return wanted - true


def output(*command):
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
    ).stdout


def run_child(name, environment):
    """Run one group in a process of its own; "" or why it failed."""
    for _ in range(
        2
    ):  # Jittor's parallel compiler crashes now and then; what it had compiled is kept
        done = subprocess.run(
            [sys.executable, os.path.abspath(__file__), "--child", name],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            errors="replace",
        )
        records = [
            line[len(RECORD) :] for line in done.stdout.splitlines() if line.startswith(RECORD)
        ]
        if records:
            break
    with open(os.path.join(environment["HOME"], f"{name}.log"), "w") as file:
        file.write(done.stdout)
    problem = (
        json.loads(records[-1])
        if records
        else f"ended with code {done.returncode}: {(done.stdout.splitlines() or [''])[-1][:200]}"
    )
    return f"FAILED: {problem}; all of it in {name}.log" if problem else ""


def run_group(name):
    """In the child: bring Jittor up, as any program does, and run the group on the pretended
    device.
    """
    from jseg.machine import compilation, cuda
    from jseg.runtime import device, jt

    assert cuda.choose().case == "home", cuda.choose().reason
    device("cuda")
    missing = [
        library
        for library in ("cublas", "cudnn", "curand", "cub", "cufft", "cusparse")
        if not getattr(jt.compile_extern, library)
    ]
    problem = f"Jittor did not load {', '.join(missing)}" if missing else ""
    try:
        groups()[name]()
        jt.sync_all(True)
    except Exception as error:
        problem = (
            problem
            or f"{type(error).__name__}: {compilation.telling_line(str(error))}".replace("|", "/")
        )
    print("\n" + RECORD + json.dumps(problem), flush=True)
    os._exit(0)  # no destructors of pretended libraries


def groups():
    """{name: function}, in the order in which they are run."""
    return {
        function.__name__: function
        for function in (
            operators,
            half,
            fused,
            unet,
            sampling,
            autoencoder,
            discriminator,
            perceptual,
            pixnerd,
            segmentation,
            alignment,
            training,
        )
    }


def back(value, *inputs):
    """Run the backward pass too."""
    from jseg.runtime import jt

    values = value if isinstance(value, (list, tuple)) else [value]
    loss = sum((v.float32() * v.float32()).sum() for v in values)
    jt.sync([loss, *jt.grad(loss, list(inputs))])


def normal(*shape):
    import numpy as np

    from jseg.runtime import jt

    return jt.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def parameters(module):
    from jseg.training.optimizer import trainable

    return list(trainable(module).values())


def operators():
    """Jittor's own operators, one by one"""
    from jseg.runtime import jt

    nn = jt.nn
    x, tokens = normal(2, 8, 12, 16), normal(2, 6, 8)
    for layer in (
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.Conv2d(8, 16, 1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ConvTranspose(8, 4, 4, stride=2, padding=1),
    ):
        back(layer(x), x, *parameters(layer))
    linear, embedding = nn.Linear(8, 5), nn.Embedding(10, 4)
    back(linear(tokens), tokens, *parameters(linear))
    back(embedding(jt.array([1, 2, 3])), *parameters(embedding))
    back([jt.matmul(tokens, tokens.transpose(0, 2, 1)), nn.bmm_transpose(tokens, tokens)], tokens)
    back(
        [
            nn.softmax(tokens, -1),
            nn.log_softmax(tokens, -1),
            nn.silu(tokens),
            nn.gelu(tokens),
            jt.maximum(tokens, 0.2 * tokens),
        ],
        tokens,
    )
    back(
        [
            x.mean((2, 3)),
            x.max(1),
            jt.concat([x, x], 1),
            x[:, 1:3],
            x.transpose(0, 2, 3, 1),
            x.cumsum(1),
            x * x.sum(1, keepdims=True),
        ],
        x,
    )
    back(
        [nn.interpolate(x, size=(24, 32), mode=mode) for mode in ("nearest", "bilinear")]
        + [nn.Pool(2, 2)(x)],
        x,
    )
    back(jt.where(x > 0, x, x * 2), x)
    jt.sync(
        [
            *jt.argmax(x, 1),
            *jt.argsort(tokens, 1)[:2],
            *jt.where(tokens > 0),
            jt.randn(4, 5),
            jt.rand(4),
            x.reshape(-1).bool().all(),
        ]
    )
    scores = normal(4, 5)
    back(nn.cross_entropy_loss(scores, jt.array([0, 1, 2, 3])), scores)


def half():
    """convolutions, products and norms in bfloat16 and float16"""
    from jseg.flowseg.blocks import RMSNorm
    from jseg.nn.layers import GroupNorm
    from jseg.runtime import jt

    for kind in ("bfloat16", "float16"):
        x, tokens = normal(2, 32, 8, 8).cast(kind), normal(2, 6, 32).cast(kind)
        convolution, linear = jt.nn.Conv2d(32, 16, 3, padding=1), jt.nn.Linear(32, 8)
        for module in (convolution, linear):
            for value in module.parameters():
                value.assign(value.cast(kind))
        back(convolution(x), x, *parameters(convolution))
        back(linear(tokens), tokens, *parameters(linear))
        back(
            [
                jt.matmul(tokens, tokens.transpose(0, 2, 1)),
                jt.nn.softmax(tokens, -1),
                jt.nn.silu(tokens),
            ],
            tokens,
        )
        for layer, value in ((GroupNorm(8, 32), x), (RMSNorm(32), tokens)):
            back(layer(value.float32()).cast(kind), value)


def fused():
    """jseg.nn's operators, CUDA source, in float32, float16 and bfloat16"""
    from jseg.parity.gpu.operators import UNITS, compiled, operator_cases
    from jseg.runtime import jt

    for kind in UNITS:
        for case in operator_cases():
            types = [kind if array.ndim > 1 else "float32" for array in case.arrays]
            variables = [jt.array(array).cast(type) for array, type in zip(case.arrays, types)]
            with compiled(case.operator):
                back(case.function(*variables), *(variables[i] for i in case.wanted))


def tiny_unet():
    from jseg.ldm.presets import UNETS
    from jseg.ldm.unet import UNet

    network = UNet(UNETS["tiny"])
    network.train()
    return network


def latents(config, batch=2):
    """(latents, noise, labels) of a batch."""
    import numpy as np

    labels = np.random.default_rng(0).integers(
        0, config.classes, (batch, config.height, config.width)
    )
    return (
        *(normal(batch, config.latent_channels, config.height, config.width) for _ in range(2)),
        labels,
    )


def unet():
    """the UNet's training loss and all gradients, plain and with recompute"""
    import numpy as np

    from jseg.ldm.loss import diffusion_loss
    from jseg.ldm.schedule import Schedule
    from jseg.nn.layers import one_hot

    network = tiny_unet()
    z, noise, labels = latents(network.config)
    for network.recompute in (False, True):
        found = diffusion_loss(
            network,
            Schedule(),
            z,
            np.array([0, 500]),
            one_hot(labels, network.config.classes),
            noise,
        )
        back(found["loss"], *parameters(network))


def sampling():
    """guided DDIM steps of the UNet in evaluation"""
    from jseg.ldm.samplers import add_noise, ddim, guided
    from jseg.ldm.schedule import Schedule
    from jseg.nn.layers import one_hot
    from jseg.runtime import jt

    network = tiny_unet()
    network.eval()
    z, noise, labels = latents(network.config, 1)
    schedule = Schedule("ddim10")
    with jt.no_grad():
        predictor = guided(network, one_hot(labels, network.config.classes), 3.5)
        for _ in ddim(predictor, add_noise(schedule, z, 2, noise), schedule, 2):
            pass


def tiny_autoencoder():
    from jseg.ldm.autoencoder import Autoencoder
    from jseg.ldm.presets import AUTOENCODERS

    network = Autoencoder(AUTOENCODERS["tiny"])
    network.train()
    return network


def autoencoder():
    """the autoencoder: encode, codes, decode; its training loss and all gradients"""
    from jseg.ldm.vqgan_loss import autoencoder_loss
    from jseg.runtime import jt

    network, images = tiny_autoencoder(), normal(2, 3, 64, 64)
    back(autoencoder_loss(network)({"images": images, "step": 0})["loss"], *parameters(network))
    network.eval()
    with jt.no_grad():
        z = network.encode(images)
        jt.sync([network.decode(z), network.decode(z, quantize=False)])


def discriminator():
    """the discriminator with both norms: both losses and all gradients"""
    from jseg.ldm.discriminator import NORMS, Discriminator
    from jseg.ldm.vqgan_loss import autoencoder_loss, discriminator_loss

    network, batch = tiny_autoencoder(), {"images": normal(2, 3, 64, 64), "step": 0}
    for norm in NORMS:
        judge = Discriminator(16, norm=norm)
        judge.train()
        back(discriminator_loss(network, judge)(batch)["loss"], *parameters(judge))
        back(autoencoder_loss(network, judge)(batch)["loss"], *parameters(network))


def perceptual():
    """LPIPS and its gradient"""
    from jseg.ldm.lpips import Lpips

    image = normal(1, 3, 32, 32)
    back(Lpips()(normal(1, 3, 32, 32), image), image)


def tiny_pixnerd(**changed):
    import dataclasses

    from jseg.flowseg.pixnerd import PixNerd
    from jseg.flowseg.presets import NETWORKS

    network = PixNerd(dataclasses.replace(NETWORKS["tiny"], **changed))
    network.train()
    return network


def flow_batch(config):
    import numpy as np

    rng, size = np.random.default_rng(0), (2, config.height, config.width)
    return {
        "images": rng.integers(0, 256, (2, 3, *size[1:])).astype(np.uint8),
        "noise": rng.standard_normal((2, 3, *size[1:]), dtype=np.float32),
        "labels": rng.integers(0, config.labels, size).astype(np.uint8),
        "t": np.array([0.2, 0.7], np.float32),
    }


def pixnerd():
    """PixNerd's training loss with the correction and all gradients, from image and from noise,
    plain and with recompute
    """
    from jseg.flowseg.encoding import class_codes
    from jseg.flowseg.field import training_loss

    for source in ("image", "noise"):
        network = tiny_pixnerd(source=source)
        codes = class_codes(network.config.labels, network.config.codes)
        for network.recompute in (False, True):
            back(
                training_loss(network, codes)(flow_batch(network.config))["loss"],
                *parameters(network),
            )


def segmentation():
    """flows of PixNerd by every method"""
    import numpy as np

    from jseg.flowseg import ode

    network = tiny_pixnerd()
    network.eval()
    x = np.zeros((1, 3, network.config.height, network.config.width), np.float32)
    for method in ode.METHODS.values():
        for _ in method(network, x, 2):
            pass


def alignment():
    """DINOv2's tokens and the alignment's loss and gradients"""
    from jseg.flowseg.dinov2 import Dinov2, Dinov2Config
    from jseg.flowseg.repa import Alignment

    encoder = Dinov2(Dinov2Config(width=24, depth=1, heads=2, grid=5))
    align = Alignment(encoder, 48, patch=8, encoder_width=24)
    tokens = normal(1, 24, 48)
    back(
        align({"loss": tokens.sum()}, tokens, normal(1, 3, 32, 48))["loss"],
        tokens,
        *parameters(align.proj),
    )


def training():
    """AdamW and the moving average"""
    from jseg.runtime import jt
    from jseg.training.optimizer import EMA, AdamW, trainable

    layer = jt.nn.Conv2d(8, 8, 3)
    named = trainable(layer)
    optimizer, average = AdamW(named, 1e-3, weight_decay=0.01), EMA(named, 0.9)
    gradients = jt.grad((layer(normal(1, 8, 8, 8)) ** 2).sum(), list(named.values()))
    optimizer.step(dict(zip(named, gradients)))
    average.update(1)


if __name__ == "__main__":
    sys.exit(main())
