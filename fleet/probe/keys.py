"""The keys of the calls: how each is named, which fields are asked for, which calls are the state.

Keys are the calls themselves, a GPU by its index: ``field(3,165,7)``. Asks nothing.
"""

from functools import lru_cache
from typing import Any, Dict, Tuple

Field = Tuple[int, int]
"""Number and scope of a field."""

INIT = "nvmlInit()"

LINK_COUNT = (91, 0)
COMMON_SPEED = (90, 0)
POWER_INSTANT = (186, 0)
RECOVERY_ACTION = (230, 0)
C2C_COUNT = (170, 0)
C2C_RATE = (172, 0)
OF_GPU = (COMMON_SPEED, POWER_INSTANT, RECOVERY_ACTION, C2C_COUNT, C2C_RATE)
STATE = 165
VERSION = 166
OF_LINK = (146, 164, STATE, VERSION, 161, 162, 163, 208, 213, 214, 221)
"""Far link, speed, state, version; replays, recoveries, CRC errors (to Hopper); receive errors,
recoveries, failed recoveries and symbol errors (from Blackwell)."""

STATE_NAMES = frozenset(
    "nvmlDeviceGet" + name
    for name in (
        "FieldValues",
        "MemoryInfo",
        "GpuFabricInfoV",
        "PlatformInfo",
        "EccMode",
        "TotalEccErrors",
        "RemappedRows",
        "CurrentClocksEventReasons",
        "TemperatureV",
        "PowerUsage",
        "EnforcedPowerLimit",
        "ComputeMode",
        "PersistenceMode",
        "UtilizationRates",
        "ComputeRunningProcesses",
        "ProcessUtilization",
        "MigMode",
        "MaxMigDeviceCount",
        "MigDeviceHandleByIndex",
    )
)
"""Calls that are made again for the state: what they tell changes by the minute."""


def key_of(name: str, *arguments: Any) -> str:
    """The key of a call: its name, the GPU's index, what else was asked."""
    return "{}({})".format(name, ",".join(str(argument) for argument in arguments))


@lru_cache(maxsize=64)
def field_names(fields: Tuple[Field, ...]) -> Dict[Field, str]:
    """The fields as they are called in the answer to a question for many: ``165,7``."""
    return {field: "{},{}".format(*field) for field in fields}


@lru_cache(maxsize=8192)
def is_state(key: str) -> bool:
    """Whether a key's answer is asked for anew with the state: what is left is the inventory."""
    name, _, arguments = key.partition("(")
    return name in STATE_NAMES or "." in arguments or name == "process"
