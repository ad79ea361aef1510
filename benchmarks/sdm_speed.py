"""PyTorch's SDM at the UNet's release size, for `gpu_check --sdm`: seconds and memory of one guided
step and of a training step.

SDM (WeilunWang/semantic-diffusion-model) has the release's network and state-dict names; a guided
step is two forwards. float32 without and with TF32, and under autocast. Prints a line of JSON for
each.

  python benchmarks/sdm_speed.py --sdm semantic-diffusion-model --device cuda
"""

import argparse
import json
import sys
import time

WIDTHS = {"release": (256, 64), "small": (32, 16), "tiny": (32, 16)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sdm", required=True, help="folder of a clone of WeilunWang/semantic-diffusion-model"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", default="release", choices=sorted(WIDTHS))
    args = parser.parse_args()
    import torch

    unet, x, t, y = network(torch, args.sdm, args.size, args.device)
    kinds = ["float32"] + (["tf32", "float16", "bfloat16"] if args.device == "cuda" else [])
    for kind in kinds:
        for case, compute in (
            ("guided step", lambda: guided(torch, unet, x, t, y)),
            ("training step", training(torch, unet, x, t, y)),
        ):
            measure(torch, args.device, kind, case, compute)


def network(torch, folder, size, device, examples=1, use_checkpoint=False):
    """(UNet, latents [n, 3, 96, 128], timesteps [n], one-hot maps) on the device."""
    sys.path.insert(0, folder)
    from guided_diffusion.script_util import create_model

    channels, head = WIDTHS[size]
    unet = create_model(
        128,
        29,
        channels,
        2,
        learn_sigma=True,
        class_cond=True,
        attention_resolutions="32,16,8",
        num_head_channels=head,
        use_scale_shift_norm=True,
        resblock_updown=True,
        no_instance=True,
        use_checkpoint=use_checkpoint,
    ).to(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples, 3, 96, 128, generator=generator).to(device)
    labels = torch.randint(0, 29, (examples, 96, 128), generator=generator)
    y = torch.nn.functional.one_hot(labels, 29).permute(0, 3, 1, 2).float().to(device)
    return unet, x, torch.tensor([600] * examples, device=device), y


def guided(torch, unet, x, t, y):
    with torch.no_grad():
        conditional, null = unet(x, t, y=y)[:, :3], unet(x, t, y=torch.zeros_like(y))[:, :3]
        return null + 3.5 * (conditional - null)


def training(torch, unet, x, t, y):
    """The loss of the noise alone: the variational term's cost is nothing beside the network's."""
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-4, weight_decay=0.0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        ((unet(x, t, y=y)[:, :3] - x) ** 2).mean().backward()
        optimizer.step()

    return step


def measure(torch, device, kind, case, compute):
    cuda = device == "cuda"
    print(json.dumps({"begins": f"PyTorch SDM, {case}, {kind}"}), flush=True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    best, began = float("inf"), time.perf_counter()
    for number in range(6):
        before = time.perf_counter()
        if kind.endswith("16"):
            with torch.autocast("cuda", getattr(torch, kind)):
                compute()
        else:
            compute()
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - before) if number else best
        if number and time.perf_counter() - began > 20:
            break
    record = {
        "group": "sdm",
        "case": f"PyTorch SDM, {case}, {kind}",
        "ok": True,
        "seconds": best,
        "took": time.perf_counter() - began,
    }
    if cuda:
        record["gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
