"""The two networks of the logo model: where marks may be, and what a patch looks like as a vector. PyTorch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

DIM = 128
STRIDE = 8  # pixels a cell of the detector's maps
PRIOR_LOGIT = -4.0  # a cell in fifty holds the middle of a mark: training starts from there


def _step(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two convolutions beside the identity (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _step(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)), inplace=True)


class Encoder(nn.Module):
    """PATCH float32 [B,1,64,64], about -1..1 -> unit vectors float32 [B,DIM]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _step(1, 24, 2),
            _step(24, 48, 2),
            _step(48, 96, 2),
            _Residual(96),
            _step(96, 128, 2),
            _Residual(128),
        )
        # The four by four cells are kept apart: where a stroke is tells marks apart as much as that it is there.
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 16, DIM, bias=False), nn.BatchNorm1d(DIM))

    def forward(self, patch: Tensor) -> Tensor:
        return functional.normalize(self.head(self.body(patch)), dim=1)


class Detector(nn.Module):
    """IMAGE float32 [B,3,H,W], about -1..1, sides multiples of 32 -> SCORES logits [B,1,H/8,W/8], SIDES [B,4,H/8,W/8].

    SIDES are the distances from a cell's middle to the left, top, right and bottom of its mark, in cells.
    """

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(_step(3, 16, 2), _step(16, 24, 2), _Residual(24))
        self.eighth = nn.Sequential(_step(24, 48, 2), _Residual(48), _Residual(48))
        self.sixteenth = nn.Sequential(_step(48, 64, 2), _Residual(64), _Residual(64))
        self.thirtysecond = nn.Sequential(_step(64, 96, 2), _Residual(96), _Residual(96))
        self.sixtyfourth = nn.Sequential(_step(96, 96, 2), _Residual(96))
        self.lateral = nn.ModuleList(nn.Conv2d(width, 48, 1) for width in (48, 64, 96, 96))
        self.join = _step(48, 48)
        self.heads = _step(48, 48)
        self.score, self.sides = nn.Conv2d(48, 1, 1), nn.Conv2d(48, 4, 1)
        nn.init.constant_(self.score.bias, PRIOR_LOGIT)
        nn.init.constant_(self.sides.bias, 1.0)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        levels = [self.eighth(self.low(image))]
        for stage in (self.sixteenth, self.thirtysecond, self.sixtyfourth):
            levels.append(stage(levels[-1]))
        last = self.lateral[-1](levels[-1])
        for lateral, level in zip(list(self.lateral)[-2::-1], levels[-2::-1], strict=True):
            last = lateral(level) + functional.interpolate(last, scale_factor=2.0, mode="nearest")
        found = self.heads(self.join(last))
        return self.score(found), functional.softplus(self.sides(found)) * 4
