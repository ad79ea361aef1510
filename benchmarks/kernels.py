"""Our compiled operators beside plain Jittor: agreement of results and gradients, and the ratio of
the times, in one run on this device.

"twin" is the operator's twin in plain Jittor; "before", where there is one, is what the layers do
without the operator, which on the CPU is made of other operators of ours. They are timed in turn,
and the best of the repetitions counts. Differences are relative to the largest value. With one
thread on the CPU the processor's time is counted, which other work on the machine changes little.

  OMP_NUM_THREADS=1 python benchmarks/kernels.py               # all, on the CPU
  OMP_NUM_THREADS=1 python benchmarks/kernels.py --networks    # whole steps of networks
  python benchmarks/kernels.py --device cuda --only attention rms_norm
"""

import argparse
import contextlib
import functools
import os
import time

CLOCK = time.perf_counter
ALL = (
    *("group_norm", "attention", "rms_norm", "winograd", "im2col"),
    *("neural_field", "turned_heads", "transformer_block"),
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="NAME", help="parts of the names of cases"
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--networks",
        action="store_true",
        help="steps of the small networks, with none, one and all of the operators",
    )
    args = parser.parse_args()
    from jseg.runtime import device

    if device(args.device) == "cpu" and os.environ.get("OMP_NUM_THREADS") == "1":
        global CLOCK
        CLOCK = time.process_time
    if args.networks:
        return networks(args.repetitions)
    print(
        "| operator | sizes | differences, result / gradients | time | before / ours | twin / "
        "ours | with gradients | before / ours | twin / ours "
        "|\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, sizes, make in cases():
        if not args.only or any(part in name for part in args.only):
            print(row(name, sizes, make, args.repetitions), flush=True)


def cases():
    """(name, sizes, function that makes {"ours", "before", "twin": function of the inputs}, inputs)
    in the shapes of the networks.
    """
    return [
        ("moments", "4096 rows of 16,384", moments(4096, 16384)),
        ("products", "16 of 768x64x768", products(16, 768, 64, 768)),
        ("group_norm: norm, SiLU", "2x256x48x64", group_norm((2, 256, 48, 64), False, False)),
        ("group_norm: norm, FiLM, SiLU", "2x256x48x64", group_norm((2, 256, 48, 64), False, True)),
        ("group_norm: norm, SPADE, SiLU", "2x256x48x64", group_norm((2, 256, 48, 64), True, False)),
        (
            "group_norm: norm, SPADE, FiLM, SiLU",
            "2x256x48x64",
            group_norm((2, 256, 48, 64), True, True),
        ),
        (
            "group_norm: norm, SPADE, FiLM, SiLU",
            "2x1024x6x8",
            group_norm((2, 1024, 6, 8), True, True),
        ),
        ("attention", "16 heads of 768x64", attention(16, 768, 64)),
        ("attention", "32 heads of 192x64", attention(32, 192, 64)),
        ("attention", "16 heads of 300x64", attention(16, 300, 64)),
        ("attention", "1 head of 3072x512", attention(1, 3072, 512)),
        ("rms_norm: adaLN", "8x300x128", rms_norm((8, 300, 128), True)),
        ("rms_norm: adaLN", "1x1024x1024", rms_norm((1, 1024, 1024), True)),
        ("rms_norm: norm", "2400x64x16", rms_norm((2400, 64, 16), False)),
        ("correction", "4x512x512, 150 classes", correction(4, 512, 150)),
    ]


def random(*shape, seed=0):
    import numpy as np

    from jseg.runtime import jt

    return jt.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@contextlib.contextmanager
def chosen(names):
    from jseg.nn import kernels

    before = kernels.FASTER
    kernels.FASTER = {"cpu": names, "cuda": names}
    try:
        yield
    finally:
        kernels.FASTER = before


def under(names, function):
    """The function with the operators of those names and no others, its gradients too."""

    def call(*inputs):
        with chosen(names):
            return function(*inputs)

    call.names = names
    return call


def moments(rows, n):
    def make():
        from jseg.nn import kernels

        return {
            "ours": lambda x: kernels.moments(x)[1],
            "twin": lambda x: kernels.plain_moments(x)[1],
        }, [random(rows, n)]

    return make


def products(n, length, inner, others):
    def make():
        from jseg.nn import kernels

        return {
            "ours": kernels.products,
            "twin": lambda a, b: kernels.plain_products(a, b, False, False, False),
        }, [random(n, length, inner), random(n, inner, others, seed=1)]

    return make


def group_norm(shape, maps, film):
    def make():
        from jseg.nn.group_norm import group_norm

        like = shape if maps else shape[1:2]
        inputs = [random(*shape), random(*like, seed=1), random(*like, seed=2)]
        if film:
            inputs += [random(*shape[:2], 1, 1, seed=seed) for seed in (3, 4)]

        def norm(x, s, t, *film):
            return group_norm(x, 32, 1e-5, s, t, film or None, True)

        return {"ours": under(("group_norm",), norm), "twin": under((), norm)}, inputs

    return make


def attention(heads, length, channels):
    def make():
        from jseg.nn import layers
        from jseg.runtime import jt

        def twin(q, k, v):
            return jt.nn.bmm(jt.nn.softmax(jt.nn.bmm_transpose(q, k) * channels**-0.5, dim=-1), v)

        def layer(q, k, v):
            return layers.attention(q, k, v, channels**-0.5)

        forms = {"ours": under(("attention",), layer), "before": under((), layer)}
        # Of one head of that size, Jittor on the CPU may make an array of all products, 19 GB.
        if heads > 1:
            forms["twin"] = twin
        return forms, [random(heads, length, channels, seed=i) for i in range(3)]

    return make


def rms_norm(shape, adaptive):
    def make():
        from jseg.flowseg.blocks import rms_scaled
        from jseg.nn import rms_norm as module

        like = (shape[0], shape[2]) if adaptive else shape[2:]
        inputs = [random(*shape), random(*like, seed=1)] + (
            [random(*like, seed=2)] if adaptive else []
        )
        return {
            "ours": under(("rms_norm",), rms_scaled),
            "before": under((), rms_scaled),
            "twin": under((), lambda x, *rest: module.rms_norm(x, 1e-6, *rest)),
        }, inputs

    return make


def correction(batch, size, classes):
    def make():
        import numpy as np

        from jseg.flowseg import potential
        from jseg.flowseg.encoding import class_codes
        from jseg.runtime import jt

        x, codes = random(batch, 3, size * size), jt.array(class_codes(classes).astype(np.float32))
        labels = jt.array(
            np.random.default_rng(1).integers(0, classes, (batch, size * size)).astype(np.int32)
        )
        return {
            "ours": lambda x: potential._compiled(x, labels, codes, 1.0, 1e-2)[0],
            "twin": lambda x: potential.plain(x, labels, codes, 1.0, 1e-2)[0],
        }, [x]

    return make


def row(name, sizes, make, repetitions):
    forms, inputs = make()
    kinds = (False, True) if name not in ("moments", "products", "correction") else (False,)
    other = "twin" if "twin" in forms else "before"
    differences, times = [], []
    for gradients in kinds:
        ours, theirs = (found(forms[form], inputs, gradients) for form in ("ours", other))
        differences.append(f"{largest(ours, theirs):.0e}")

        seconds = timed(forms, inputs, gradients, repetitions)
        times.append(f"{1e3 * seconds['ours']:.2f} ms")
        for form in ("before", "twin"):
            times.append(f"{seconds[form] / seconds['ours']:.2f}" if form in seconds else "")
    times += [""] * (6 - len(times))
    return "| " + " | ".join([name, sizes, " / ".join(differences)] + times) + " |"


def compute(function, inputs, gradients):
    from jseg.runtime import jt

    if not gradients:
        with jt.no_grad():
            return [function(*inputs)]
    with chosen(getattr(function, "names", ())):  # the gradient chooses when it is asked for
        y = function(*inputs)
        return jt.grad(y * factor(tuple(y.shape)), inputs)


@functools.lru_cache(maxsize=1)
def factor(shape):
    return random(*shape, seed=9).stop_grad()


def found(function, inputs, gradients):
    return [v.numpy() for v in compute(function, inputs, gradients)]


def timed(forms, inputs, gradients, repetitions):
    from jseg.runtime import jt

    best = {}
    for number in range(repetitions + 1):
        for form, function in forms.items():
            jt.sync_all(True)
            before = CLOCK()
            jt.sync(compute(function, inputs, gradients))
            jt.sync_all(True)
            if number:
                best[form] = min(best.get(form, 1e9), CLOCK() - before)
    return best


def largest(ours, theirs):
    import numpy as np

    return max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(ours, theirs)
    )


def networks(repetitions):
    """A table of the ratio of the times without and with operators of jseg.nn."""
    kinds = [()] + [(name,) for name in ALL] + [ALL]
    print(
        "| step | without | with "
        + " | with ".join([*ALL, "all"])
        + " |\n|"
        + "---|" * (len(ALL) + 3)
    )
    for name, make in steps():
        step, best = make(), {}
        for number in range(repetitions + 1):
            for names in kinds:
                with chosen(names):
                    before = CLOCK()
                    step()
                    spent = CLOCK() - before
                if number:
                    best[names] = min(best.get(names, 1e9), spent)
        ratios = [f"{best[()] / best[names]:.2f}" for names in kinds[1:]]
        print("| " + " | ".join([name, f"{1e3 * best[()]:.1f} ms"] + ratios) + " |", flush=True)


def steps():
    """(name, function that makes a function that takes a step and waits for it) of networks under
    stand-in weights.
    """
    from jseg.flowseg.presets import NETWORKS
    from jseg.ldm.presets import UNETS

    return [
        ("guided step, UNet landscape, 32x24 latent", lambda: guided_step(UNETS["landscape"])),
        ("guided step, UNet small, 128x96 latent", lambda: guided_step(UNETS["small"])),
        ("training step, UNet landscape, 4 examples", lambda: unet_step(UNETS["landscape"], 4)),
        ("velocity, PixNerd small, 160x120", lambda: velocity(NETWORKS["small"])),
        ("training step, PixNerd small, 2 crops", lambda: pixnerd_step(NETWORKS["small"], 2)),
    ]


def filled(network):
    from jseg.parity.stand_in import value
    from jseg.runtime import jt

    for name, v in network.state_dict().items():
        v.assign(jt.array(value(name, v.shape)))
    return network


def training_step(network, loss, batch):
    from jseg.training.loop import TrainedNetwork, take_step
    from jseg.training.optimizer import AdamW, trainable

    network.train()
    part = TrainedNetwork("", network, loss, AdamW(trainable(network), 1e-4))
    return lambda: take_step(part, [(batch, 1.0)], 0)


def unet_step(config, count):
    import numpy as np

    from jseg.ldm.loss import training_loss
    from jseg.ldm.schedule import Schedule
    from jseg.ldm.unet import UNet

    rng = np.random.default_rng(0)
    shape = (count, 3, config.height, config.width)
    batch = {
        "z": rng.standard_normal(shape).astype(np.float32),
        "t": np.full(count, 500),
        "labels": rng.integers(0, 29, shape[:1] + shape[2:]),
        "noise": rng.standard_normal(shape).astype(np.float32),
        "seed": 0,
        "step": 0,
        "start": 0,
    }
    unet = filled(UNet(config))
    return training_step(unet, training_loss(unet, Schedule()), batch)


def guided_step(config):
    import numpy as np

    from jseg.ldm.samplers import guided
    from jseg.ldm.unet import UNet
    from jseg.nn.layers import one_hot
    from jseg.runtime import jt

    unet = filled(UNet(config))
    unet.eval()
    labels = np.random.default_rng(0).integers(0, 29, (1, config.height, config.width))
    predictor = guided(unet, one_hot(labels, 29), 3.5)
    x, t = random(1, 3, config.height, config.width), jt.array(np.array([600], np.int32))
    return lambda: predictor(x, t).sync()


def pixnerd_step(config, count):
    import numpy as np

    from jseg.flowseg.encoding import class_codes
    from jseg.flowseg.field import training_loss
    from jseg.flowseg.pixnerd import PixNerd

    rng = np.random.default_rng(0)
    network, codes = filled(PixNerd(config)), class_codes(config.labels)
    shape = (count, 3, config.height, config.width)
    labels = rng.integers(0, config.labels, shape[:1] + shape[2:]).astype(np.uint8)
    batch = {
        "images": rng.integers(0, 256, shape).astype(np.uint8),
        "labels": labels,
        "t": rng.random(count).astype(np.float32),
        "noise": rng.standard_normal(shape).astype(np.float32),
    }
    return training_step(network, training_loss(network, codes), batch)


def velocity(config):
    import numpy as np

    from jseg.flowseg.pixnerd import PixNerd
    from jseg.runtime import jt

    network = filled(PixNerd(config))
    network.eval()
    x, t = random(1, 3, config.height, config.width), jt.array(np.array([0.3], np.float32))

    def step():
        with jt.no_grad():
            network(x, t).sync()

    return step


if __name__ == "__main__":
    main()
