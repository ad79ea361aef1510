"""Counts of multiply-adds of the networks, from their configurations alone: convolutions, matrix
products and attention.

Norms, activations and sums are not counted. For the release's UNet at a 96x128 latent, one plain
forward comes to 344.9e9, of them 115.8e9 in the SPADE convolutions, which read the label map only,
and 58.5e9 in the encoder half, which does not see it.
"""

from typing import Dict, List, NamedTuple

from jseg.configs import AutoencoderConfig, UNetConfig
from jseg.ldm.state_dict import autoencoder_shapes, unet_shapes

# Of a 3x3 convolution's multiply-adds: Winograd's (jseg.nn.winograd), and those behind a nearest
# doubling as four 2x2 ones (jseg.nn.convolution).
WINOGRAD, DOUBLED = 36 / 144, 4 / 9


class Product(NamedTuple):
    """One convolution or matrix product of a pass over one example; `doubled`: its 3x3 convolution
    follows a nearest doubling.
    """

    half: str  # "spade", "encoder" or "decoder"
    shape: tuple  # of the weight; of attention (heads, channels of a head)
    height: int  # of what comes out
    width: int
    doubled: bool = False
    attention: bool = False
    stride: int = 1

    def part(self, device: str) -> float:
        """Of its multiply-adds, those that jseg computes on that device."""
        if self.attention or device != "cpu" or self.shape[2:] != (3, 3) or self.stride > 1:
            return 1.0
        from jseg.nn import lanes, winograd

        if lanes.has_avx2() and winograd.pays(1, *self.shape[:2], self.height, self.width):
            return WINOGRAD
        return DOUBLED if self.doubled else 1.0

    @property
    def count(self) -> float:
        pixels = self.height * self.width
        if self.attention:
            return 2.0 * self.shape[0] * self.shape[1] * pixels**2
        count = float(pixels)
        for n in self.shape:
            count *= n
        return count


def of_unet(config: UNetConfig) -> List[Product]:
    """Every product of one forward of the UNet, without those of the time embedding, which see no
    pixels.
    """
    found, levels = [], len(config.channel_mult)
    for name, shape in unet_shapes(config).items():
        if not name.endswith("weight") or len(shape) < 3:
            continue
        place, *rest = name.split(".")
        second = False  # whether it is behind the resampling of its block
        if place == "input_blocks":
            level, position = (
                divmod(int(rest[0]) - 1, config.blocks + 1) if int(rest[0]) else (0, 0)
            )
            level += position == config.blocks
            half = "encoder"
        elif place == "output_blocks":
            number, layer = int(rest[0]), rest[1]
            level, half = levels - 1 - number // (config.blocks + 1), "decoder"
            up = layer != "0" and any(
                part in name for part in ("in_norm", "in_layers", "out_norm", "out_layers")
            )
            second = up and "in_norm" not in name
            level -= second
        else:
            level, half = 0 if place == "out" else levels - 1, "decoder"
        half = "spade" if ".in_norm." in name or ".out_norm." in name else half
        height, width = config.height >> level, config.width >> level
        found.append(Product(half, shape, height, width, doubled=second and "in_layers" in name))
        if name.endswith("qkv.weight"):
            heads = shape[1] // config.head_channels
            found.append(
                Product(half, (heads, config.head_channels), height, width, attention=True)
            )
    return found


def of_decoding(config: AutoencoderConfig, height: int, width: int) -> List[Product]:
    """Every product of decoding a latent of that size, the search of the codebook included."""
    found = [Product("decoder", (config.codebook_size, config.latent_channels), height, width)]
    last = len(config.channel_mult) - 1
    for name, shape in autoencoder_shapes(config).items():
        if (
            not name.startswith(("decoder.", "post_quant"))
            or not name.endswith("weight")
            or len(shape) < 3
        ):
            continue
        level, upsample = (
            0,
            name.endswith("upsample.conv.weight"),
        )  # doublings behind it that have been done
        if ".up." in name:
            level = last - int(name.split(".")[2]) + upsample
        elif "norm_out" in name or "conv_out" in name:
            level = last
        found.append(Product("decoder", shape, height << level, width << level, doubled=upsample))
        if name.endswith("attn_1.q.weight"):
            found.append(Product("decoder", (1, shape[0]), height, width, attention=True))
    return found


def of_encoding(config: AutoencoderConfig, height: int, width: int) -> List[Product]:
    """Every product of encoding an image whose latent has that size."""
    found = []
    last = len(config.channel_mult) - 1
    for name, shape in autoencoder_shapes(config).items():
        if (
            not name.startswith(("encoder.", "quant_conv"))
            or not name.endswith("weight")
            or len(shape) < 3
        ):
            continue
        doublings = 0  # that the latent's size is smaller by
        if ".down." in name:
            doublings = last - int(name.split(".")[2]) - name.endswith("downsample.conv.weight")
        elif "conv_in" in name:
            doublings = last
        stride = 2 if "downsample" in name else 1
        size = height << doublings, width << doublings
        found.append(Product("encoder", shape, *size, stride=stride))
        if name.endswith("attn_1.q.weight"):
            found.append(Product("encoder", (1, shape[0]), height, width, attention=True))
    return found


def total(products: List[Product], exact: bool = False, device: str = "cpu") -> float:
    """Their multiply-adds for one example; `exact` as jseg computes them."""
    return sum(product.count * (product.part(device) if exact else 1.0) for product in products)


def guided_step(config: UNetConfig, device: str = "cpu") -> Dict[str, float]:
    """{"release": two plain forwards, "definition": one encoder pass and two decoder passes without
    SPADE convolutions and variances, "ours": as they are computed}.
    """
    products = of_unet(config)
    last = products[-1].count  # of it, half is the variances'
    found = {"release": 2 * total(products)}
    for name, exact in (("definition", False), ("ours", True)):
        found[name] = -last + sum(
            total([product], exact, device) * (2 if product.half == "decoder" else 1)
            for product in products
            if product.half != "spade"
        )
    return found


def conditioning(config: UNetConfig) -> Dict[str, float]:
    """Of the SPADE convolutions of one label map and of the null map, once a stage: {"release":
    by definition, "ours": as they are computed}.
    """
    products = [product for product in of_unet(config) if product.half == "spade"]
    return {"release": 2 * total(products), "ours": 2 * total(products, exact=True)}
