"""Whether memory grows: the slope of resident memory over time. Pure."""

from statistics import linear_regression

# Receipts fill their bounded store and allocators their arenas before memory is even.
SETTLED_SHARE = 0.5
# Below this a slope says more of the moment than of a leak.
SETTLED_SECONDS = 300.0
SLOPE_KIB_PER_MINUTE_MAX = 100.0
GROWTH_KIB_MAX = 96 << 10


def slope_kib_per_minute(samples: list[tuple[float, int]]) -> float | None:
    """Of samples (seconds, KiB), over their later part; `None` where that is too short."""
    ends = samples[-1][0]
    begins = samples[0][0] + (ends - samples[0][0]) * SETTLED_SHARE
    later = [sample for sample in samples if sample[0] >= begins]
    if ends - begins < SETTLED_SECONDS:
        return None
    return linear_regression(*zip(*later, strict=True)).slope * 60
