"""Whether memory grows: the slope of resident memory over time. Pure."""

from statistics import linear_regression

# The gateway remembers 4,096 receipts and, as it is configured here, 1,000 conversations; until then memory grows by
# design. With 10,000 conversations, the default, it grew by 250 bytes a request until they were reached, and from then
# on not at all: 0 KiB in 9,000 requests.
STORE_FULL_REQUESTS = 4500
# Below this a slope says more of the moment than of a leak.
SETTLED_SECONDS = 300.0
SLOPE_KIB_PER_MINUTE_MAX = 100.0
GROWTH_KIB_MAX = 96 << 10


def slope_kib_per_minute(samples: list[tuple[float, int]]) -> float | None:
    """Of samples (seconds, KiB) since the store was full; `None` if they span too little time."""
    if not samples or samples[-1][0] - samples[0][0] < SETTLED_SECONDS:
        return None
    return linear_regression(*zip(*samples, strict=True)).slope * 60
