"""Looking at the pixels that arrive: causes 1 to 5 and 7, against what the backbone expects."""

import math

from headstart.analysis.diagnosis import Finding
from headstart.diagnosis.arrival import Arrival, Standardised, not_understood
from headstart.models.backbones import default_input_size
from headstart.records import Preprocessing

_FRAME = 0.98  # chosen: a frame of one pixel at 112 is a library's rounding, not padding
_RANGE = 0.15  # chosen: of the expected range; brightness moved by so much costs less than a point
_SAME_SCALING = 0.35  # chosen: in units of log scale and offset, half the distance between the nearest two scalings

Scaling = tuple[float, float]  # pixels 0..1 to `scale * pixel + offset`
_CLOSE = 0.1  # chosen, in the same units: two explanations that differ by less are both told
_ONCE: tuple[Scaling, ...] = ((1.0, 0.0), (2.0, -1.0), (4.44, -2.02), (255.0, 0.0), (255.0, -116.0), (0.5, 0.0))
"""How pixels are usually scaled: 0..1, -1..1, ImageNet's mean and deviation, 0..255, the same without the mean, half."""

_USUAL = _ONCE[:4]  # ranges that a public network was pretrained with


def look_at_pixels(
    arrival: Arrival,
    contract: Preprocessing | None,
    canvas: int,
    native: int,
    standardised: Standardised = "none",
    *,
    coloured: bool = True,
) -> list[Finding]:
    """Compare what arrives with what is expected.

    Args:
        arrival: measured.
        contract: of the backbone; `None` where it is not known.
        canvas: side of the images, in pixels.
        native: side that the backbone was pretrained at.
        standardised: whether the contract wants each image standardised by itself.
        coloured: whether the images have colours.

    Returns:
        One finding for each of causes 1, 2, 3, 4, 5 and 7.
    """
    findings = [_size(arrival, canvas, native)]
    if not arrival.is_understood:
        code, values = not_understood(arrival)
        return findings + [Finding(c, "could-not-look", code, values) for c in (2, 3, 4, 5, 7)]
    findings.append(_padding(arrival))
    if contract is None:
        findings += [Finding(cause, "could-not-look", "no-contract", {}) for cause in (3, 4, 5)]
    else:
        findings += [*_range(arrival, contract, standardised), _order(arrival, contract, coloured)]
    return [*findings, _interpolation(arrival)]


def suitable_size(canvas: int, native: int) -> int:
    """The input size that suits data and backbone."""
    return default_input_size(canvas, native)


def _size(arrival: Arrival, canvas: int, native: int) -> Finding:
    wanted = suitable_size(canvas, native)
    # A padded image is a matter of cause 2: what counts here is the whole input.
    values = {"size": arrival.size, "native": native, "wanted": wanted, "map": arrival.map_side}
    # 96 px for 128 cost MobileNetV2 five points on CIFAR-10: how many it is here, the proof says.
    if arrival.size < wanted:
        if not arrival.field:  # no gradient told
            return Finding(1, "suspected", "small-input-by-map", values)
        return Finding(1, "suspected", "small-input", values | {"field": arrival.field})
    return Finding(1, "cleared", "enough-input", {"size": arrival.size, "map": arrival.map_side})


def _padding(arrival: Arrival) -> Finding:
    if arrival.content < _FRAME * arrival.size:
        return Finding(2, "suspected", "constant-borders", {"share": 1 - (arrival.content / arrival.size) ** 2})
    return Finding(2, "cleared", "no-borders", {})


def _range(arrival: Arrival, contract: Preprocessing, standardised: Standardised) -> list[Finding]:
    """Causes 3 and 4. Both are suspected, and each is said to be like the other, where the numbers speak for both."""
    if "none" not in (arrival.standardised, standardised):
        return [Finding(3, "cleared", "standardised-as-expected", {}), Finding(4, "cleared", "scaled-once", {})]
    if arrival.standardised != standardised:
        code = "standardised-alone" if standardised == "none" else "not-standardised"
        return [Finding(3, "suspected", code, {}), Finding(4, "cleared", "scaled-once", {})]
    low, high = _ends(contract)
    values = {
        "low": round(arrival.low, 3),
        "high": round(arrival.high, 3),
        "expected_low": round(low, 3),
        "expected_high": round(high, 3),
    }
    off = max(abs(arrival.low - low), abs(arrival.high - high)) / (high - low)
    if off <= _RANGE:
        return [
            Finding(3, "cleared", "right-range", {"low": values["low"], "high": values["high"]}),
            Finding(4, "cleared", "scaled-once", {}),
        ]
    found = (arrival.high - arrival.low, arrival.low)
    expected = (high - low, low)
    once = min(_distance(found, scaling) for scaling in _ONCE)
    twice = min(_distance(found, scaling) for scaling in _scaled_twice(expected))
    if max(once, twice) < _SAME_SCALING and abs(once - twice) < _CLOSE:
        return [
            Finding(3, "suspected", "other-range", values, like=(4,)),
            Finding(4, "suspected", "scaled-twice", values, like=(3,)),
        ]
    if twice < min(once, _SAME_SCALING):
        return [
            Finding(3, "cleared", "range-by-scaling", {}),
            Finding(4, "suspected", "scaled-twice", values),
        ]
    return [Finding(3, "suspected", "other-range", values), Finding(4, "cleared", "scaled-once", {})]


def is_usual(arrival: Arrival) -> bool:
    """Whether the pixels come as they usually do: RGB, in one of the usual ranges."""
    found = (arrival.high - arrival.low, arrival.low)
    return (
        arrival.standardised == "none"
        and arrival.order in ("RGB", "gray")
        and min(_distance(found, scaling) for scaling in _USUAL) < _SAME_SCALING / 2
    )


def _order(arrival: Arrival, contract: Preprocessing, coloured: bool) -> Finding:
    if arrival.order == "gray" and coloured:
        return Finding(5, "could-not-look", "colour-thrown-away", {})
    if arrival.order in ("gray", contract.channel_order):
        return Finding(5, "cleared", "channels-in-order", {})
    return Finding(5, "suspected", "channels-swapped", {"order": arrival.order})


def _interpolation(arrival: Arrival) -> Finding:
    enlarged_roughly = arrival.interpolation == "nearest"
    if enlarged_roughly or arrival.interpolation == "bilinear-aliased":
        return Finding(7, "suspected", "other-interpolation", {"found": arrival.interpolation, "expected": "bilinear"})
    if arrival.interpolation == "none":
        return Finding(7, "cleared", "not-resized", {"size": arrival.content})
    return Finding(7, "cleared", "same-interpolation", {"found": arrival.interpolation})


def _ends(contract: Preprocessing) -> tuple[float, float]:
    """What black and white become under a contract, mean over channels."""
    pairs = list(zip(contract.mean, contract.std, strict=True))
    return (sum(-mean / std for mean, std in pairs) / 3, sum((1 - mean) / std for mean, std in pairs) / 3)


def _scaled_twice(expected: Scaling) -> list[Scaling]:
    """The contract after another scaling, and the usual ones after one another."""
    scale, offset = expected
    first: list[Scaling] = [(1 / 255, 0.0), (scale, offset), (2 / 255, -1.0)]
    after_contract = [(scale * a, scale * b + offset) for a, b in first]
    plain = [(1 / 255, 0.0), (2 / 255, -1.0), (2 * 2 / 255, -1 - 2 / 255), (scale / 255, offset / 255)]
    return [*after_contract, *plain]


def _distance(found: Scaling, other: Scaling) -> float:
    if found[0] * other[0] <= 0:
        return math.inf
    scale = abs(math.log(found[0] / other[0]))
    offset = abs(found[1] - other[1]) / (abs(other[0]) + abs(other[1]))
    return scale + offset
