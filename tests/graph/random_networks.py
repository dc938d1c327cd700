"""Random networks of everything that tinv says it knows, and some things that it does not: a referee's raw material."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d


class Call(nn.Module):
    """A function of one map."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


class Join(nn.Module):
    """Two branches that meet."""

    def __init__(self, how: str, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.how, self.first, self.second = how, first, second

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x), self.second(x)
        if self.how == "add":
            return a + b
        if self.how == "cat":
            return torch.cat([a, b], 1)
        if self.how == "max":
            return torch.max(a, b)
        if self.how == "min":
            return torch.minimum(a, b)
        if self.how == "gate":
            return a * torch.sigmoid(b)
        if self.how == "stack":
            return torch.stack([a, b], 2).mean(2)
        return torch.where(a > 0, a, b)

    def extra_repr(self) -> str:
        return self.how


class Gate(nn.Module):
    """Scales channels by a function of their means (squeeze-excite), or positions by one of the channels (CBAM)."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.fc = nn.Linear(channels, channels)
        self.conv = nn.Conv2d(
            2 if how == "cbam" else 1, 1, 7 if how == "cbam" else 3, padding=3 if how == "cbam" else 1
        )
        self.scale = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "se":
            return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]
        if self.how == "se_expand":
            gate = torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)))
            return x * gate.unsqueeze(-1).unsqueeze(-1).expand_as(x)
        if self.how == "eca":
            return x * torch.sigmoid(self.scale(x.mean((2, 3)).unsqueeze(1))).transpose(1, 2).unsqueeze(-1)
        if self.how == "cbam":
            both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
            return x * torch.sigmoid(self.conv(both))
        if self.how == "context":
            weights = self.conv(x.max(1)[0].unsqueeze(1)).flatten(2).softmax(-1)
            return x + (x.flatten(2) * weights).sum(-1)[:, :, None, None]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
        return x * torch.sigmoid(rows + columns)

    def extra_repr(self) -> str:
        return self.how


class Attention(nn.Module):
    """Attention of all positions to all."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.layer = nn.MultiheadAttention(channels, 1, batch_first=True)
        self.q, self.k = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        if self.how == "layer":
            mixed = self.layer(tokens, tokens, tokens)[0]
        elif self.how == "function":
            mixed = F.scaled_dot_product_attention(self.q(tokens), self.k(tokens), tokens)
        else:
            scores = (self.q(tokens) @ self.k(tokens).transpose(-2, -1)).softmax(-1)
            mixed = scores @ tokens
        return x + mixed.transpose(1, 2).reshape(x.shape)

    def extra_repr(self) -> str:
        return self.how


class Position(nn.Module):
    """Adds, multiplies or concatenates numbers that differ, or do not, from position to position."""

    def __init__(self, shape: tuple[int, ...], how: str) -> None:
        super().__init__()
        self.how = how
        _, channels, height, width = shape
        self.table = nn.Parameter(torch.randn(1, channels, height, width))
        self.row = nn.Parameter(torch.randn(1, channels, height, 1))
        self.shift = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "table":
            return x + self.table
        if self.how == "row":
            return x * self.row
        if self.how == "channel":
            return x + self.shift
        if self.how == "grid":
            grid = torch.linspace(-1, 1, x.shape[3], dtype=x.dtype).expand(x.shape[0], 1, x.shape[2], x.shape[3])
            return torch.cat([x, grid], 1)
        if self.how == "even":
            return x * torch.ones_like(x[:, :1])
        return (x - torch.tensor(0.1)) / torch.tensor([0.5], dtype=x.dtype)

    def extra_repr(self) -> str:
        return self.how


def randomize(network: nn.Module) -> nn.Module:
    """Gives norms random statistics, factors and shifts."""
    for module in network.modules():
        for name in ("running_mean", "running_var"):
            values = getattr(module, name, None)
            if isinstance(values, Tensor):
                values.uniform_(0.5, 1.5) if name == "running_var" else values.normal_(0, 0.1)
        if (
            isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm))
            and module.weight is not None
        ):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.2)
    return network


class Maker:
    """Draws layers that fit a map.

    Args:
        seed: Seed of the network's structure and weights.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.biases = self.random.random() < 0.5
        self.norms = self.random.choice(["batch", "group", "none", "any"])
        # half of the networks are made of what some policy makes exact
        self.clean = self.random.random() < 0.5

    def one_of(self, *choices):
        return self.random.choice(choices)

    def conv(self, c: int, out: int | None = None, stride: int | None = None, k: int | None = None) -> nn.Module:
        k = k or self.one_of(1, 3, 3, 3, 5, 2, 4)
        dilation = self.one_of(1, 1, 1, 2) if k > 1 else 1
        mode = "zeros" if k == 1 or self.clean else self.one_of("zeros", "zeros", "zeros", "circular", "reflect")
        padding = self.one_of(dilation * (k - 1) // 2, dilation * (k - 1) // 2, 0, 1)
        out = out or self.one_of(4, 6, 8)
        groups = 2 if c % 2 == out % 2 == 0 and self.random.random() < 0.2 else 1
        return nn.Conv2d(
            c, out, k, stride or self.one_of(1, 1, 2), padding, dilation, groups, self.biases, padding_mode=mode
        )

    def pool(self) -> nn.Module:
        k, stride = self.one_of((2, 2), (3, 2), (3, 1), (2, 1))
        padding, ceil = self.one_of(0, 1) if k == 3 else 0, self.random.random() < 0.2
        if self.random.random() < 0.5:
            return nn.MaxPool2d(k, stride, padding, ceil_mode=ceil)
        return nn.AvgPool2d(k, stride, padding, ceil, count_include_pad=self.random.random() < 0.5)

    def norm(self, shape: tuple[int, ...]) -> nn.Module:
        c = shape[1]
        known = {
            "batch": lambda: nn.BatchNorm2d(c),
            "group": lambda: nn.GroupNorm(2 if c % 2 == 0 else 1, c),
            "none": nn.Identity,
            "instance": lambda: nn.InstanceNorm2d(c, affine=True),
            "frozen": lambda: FrozenBatchNorm2d(c),
            "image": lambda: nn.LayerNorm(shape[1:]),
            "bare": lambda: nn.LayerNorm(shape[1:], elementwise_affine=False),
            "function": lambda: Call("layer_norm", lambda x: F.layer_norm(x, x.shape[1:])),
            "local": lambda: nn.LocalResponseNorm(3),
            "channels": lambda: nn.Sequential(
                Call("permute", lambda x: x.permute(0, 2, 3, 1)),
                nn.LayerNorm(c),
                Call("back", lambda x: x.permute(0, 3, 1, 2)),
            ),
            "unit": lambda: Call("normalize", lambda x: F.normalize(x, dim=1)),
        }
        return known[self.norms if self.norms != "any" else self.one_of(*known)]()

    def activation(self) -> nn.Module:
        return self.one_of(
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.GELU(),
            nn.SiLU(),
            nn.PReLU(),
            nn.LeakyReLU(),
            nn.Tanh(),
            nn.Sigmoid(),
            nn.Softplus(),
        )

    def pad(self, c: int) -> nn.Module:
        a, b = self.one_of(1, 2), self.one_of(0, 1, 2)
        if self.clean:
            return nn.Sequential(
                self.one_of(nn.ZeroPad2d(a), nn.CircularPad2d(a)), nn.Conv2d(c, 6, 3, bias=self.biases)
            )
        return self.one_of(
            nn.ZeroPad2d((a, b, b, a)),
            nn.ConstantPad2d(a, self.one_of(0.0, 0.5)),
            nn.ReflectionPad2d(a),
            nn.ReplicationPad2d(a),
            nn.CircularPad2d(a),
            Call("pad", lambda x: F.pad(x, (a, a, b, b))),
            Call("pad circular", lambda x: F.pad(x, (a, a, a, a), mode="circular")),
            Call("pad reflect", lambda x: F.pad(x, (a, a, a, a), mode="reflect")),
            Call("pad channels", lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))),
            Call("crop", lambda x: F.pad(x, (-1, -1, -1, -1))),
        )

    def resize(self) -> nn.Module:
        smooth = (
            []
            if self.clean
            else [
                nn.Upsample(scale_factor=2, mode="bilinear"),
                Call("bilinear", lambda x: F.interpolate(x, size=(12, 12), mode="bilinear", align_corners=True)),
            ]
        )
        return self.one_of(
            *smooth,
            nn.Upsample(scale_factor=2),
            Call("nearest", lambda x: F.interpolate(x, scale_factor=2)),
            Call("half", lambda x: F.interpolate(x, scale_factor=0.5)),
            nn.PixelShuffle(2),
            nn.PixelUnshuffle(2),
            Call("to depth", _space_to_depth),
            Call("slices", _focus),
            Call("skip", lambda x: x[:, :, ::2, ::2]),
        )

    def misc(self, shape: tuple[int, ...]) -> nn.Module:
        c = shape[1]
        half = Call("maxout", lambda x: torch.max(*x.chunk(2, 1)))
        halves = Call("halves", lambda x: torch.cat(x.split(x.shape[1] // 2, 1)[::-1], 1))
        mix, adapted = torch.randn(c, c), self.adapted
        breaks = (
            []
            if self.clean
            else [
                Call("transposed", lambda x: x.transpose(2, 3)),
                Call("symmetric", lambda x: x + x.flip(3)),
                Call("cumsum", lambda x: x.cumsum(3)),
                nn.ConvTranspose2d(c, 4, 3, 2, 1, bias=self.biases),
            ]
        )
        return self.one_of(
            *breaks,
            *([half, halves, nn.ChannelShuffle(2), nn.GLU(1)] if c % 2 == 0 else []),
            Call("roll", lambda x: x.roll((2, 3), (2, 3))),
            Call("flip", lambda x: x.flip(3)),
            Call("einsum", lambda x: torch.einsum("nchw,kc->nkhw", x, mix.to(x))),
            Call("matmul", lambda x: (mix.to(x) @ x.flatten(2)).reshape(x.shape)),
            Call("square", lambda x: x.square()),
            Call("softmax", lambda x: x.softmax(1)),
            Call("centred", lambda x: x - x.mean((2, 3), keepdim=True)),
            Call("unbind", lambda x: torch.stack(x.unbind(1), 1)),
            nn.Dropout(0.1),
            Call("adapt", lambda x: F.adaptive_avg_pool2d(x, adapted)),
            nn.ConvTranspose2d(c, 4, 2, 2, bias=self.biases),
        )

    adapted = (6, 6)

    def layer(self, shape: tuple[int, ...], depth: int = 0) -> nn.Module:
        """Returns a layer, or a few, for a map of a shape."""
        c = shape[1]
        what = self.random.random()
        if what < 0.42:
            conv = self.conv(c)
            return nn.Sequential(
                conv, self.norm((shape[0], conv.out_channels, *self.after(conv, shape)[2:])), self.activation()
            )
        if what < 0.52:
            return self.pool()
        if what < 0.58:
            return self.pad(c)
        if what < 0.65:
            return self.resize()
        if what < 0.73:
            return Gate(c, self.one_of("se", "se_expand", "eca", "cbam", "context", "strips"))
        if what < 0.77:
            breaks = [] if self.clean else ["table", "row", "grid"]
            return Position(shape, self.one_of(*breaks, "channel", "even", "tensor"))
        if what < 0.80:
            return Attention(c, self.one_of("layer", "function", "hand"))
        if what < 0.90 and depth == 0:
            return self.join(shape)
        return self.misc(shape)

    def join(self, shape: tuple[int, ...]) -> nn.Module:
        c = shape[1]
        stride, how = self.one_of(1, 1, 2), self.one_of("add", "cat", "max", "min", "gate", "stack", "where")
        out = self.one_of(4, 6)
        first = nn.Sequential(
            nn.Conv2d(c, out, 3, stride, 1, bias=self.biases), self.activation(), nn.Conv2d(out, out, 3, 1, 1)
        )
        second = nn.Conv2d(c, out, 1, stride, bias=self.biases)
        if stride == 1 and self.random.random() < 0.3:
            # an hourglass
            up = nn.Upsample(scale_factor=2)
            first = nn.Sequential(nn.Conv2d(c, out, 3, 2, 1, bias=self.biases), self.activation(), up)
        return Join(how, first, second)

    @staticmethod
    def after(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        with torch.no_grad():
            return tuple(module.double().eval()(torch.randn(shape, dtype=torch.double)).shape)

    def head(self, shape: tuple[int, ...]) -> nn.Module:
        c, (h, w) = shape[1], shape[2:]
        pooled = {
            "adaptive": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            "max": nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
            "mean": Call("mean", lambda x: x.mean((2, 3))),
            "flat mean": Call("flat mean", lambda x: x.flatten(2).mean(-1)),
            "view max": Call("view max", lambda x: x.reshape(x.shape[0], x.shape[1], -1).max(2)[0]),
            "gem": Call(
                "gem", lambda x: F.avg_pool2d(x.clamp(min=1e-3).pow(3), (x.size(-2), x.size(-1))).pow(1 / 3).flatten(1)
            ),
            "sort": Call(
                "sort", lambda x: x.flatten(2).sort(-1)[0][..., -3:].flatten(1).mean(1, keepdim=True).expand(-1, c)
            ),
            "twice": Call("twice", lambda x: x.mean(3).amax(2)),
            "std": Call("std", lambda x: x.var((2, 3))),
            "softargmax": Call("softargmax", lambda x: (x.flatten(2).softmax(-1) * x.flatten(2)).sum(-1)),
            "whole": nn.Sequential(nn.AvgPool2d((h, w)), nn.Flatten()),
            "argmax": Call("argmax", lambda x: x.flatten(2).argmax(-1).to(x.dtype)),
        }
        what = (
            self.one_of(*pooled, "dense", "dense") if self.clean else self.one_of(*pooled, *pooled, "flatten", "dense")
        )
        if what == "dense":
            return nn.Identity()
        if what == "flatten":
            return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, 5))
        return nn.Sequential(pooled[what], nn.Linear(c, 5))

    def network(self, size: tuple[int, int]) -> nn.Module:
        """Returns a network of three to eight layers and a head, for images (N, 3, *size), in float64."""
        shape: tuple[int, ...] = (1, 3, *size)
        layers: list[nn.Module] = []
        for _ in range(self.random.randint(3, 7)):
            for _ in range(10):
                self.adapted = (max(1, shape[2] // 2), max(1, shape[3] // 2))
                try:
                    layer = self.layer(shape)
                    after = self.after(layer, shape)
                except (RuntimeError, ValueError, AssertionError, TypeError):
                    continue
                if len(after) == 4 and min(after[2:]) >= 4 and max(after[2:]) <= 64 and after[1] <= 32:
                    layers.append(layer)
                    shape = after
                    break
        return randomize(nn.Sequential(*layers, self.head(shape)).double().eval())


def _space_to_depth(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, c * 4, h // 2, w // 2)


def _focus(x: Tensor) -> Tensor:
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
