"""State: how a node's devices fare at one moment. What changes by the minute; no wiring, no names.

Everything is optional: None was not reported, and the snapshot's absences say why.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from fleet.fields import REPORTED, FrozenModel, GpuUuid, Pci, Text

Ratio = Annotated[float, Field(ge=0, le=1)]

IDLE_RATIO: Final = 0.0
"""A GPU whose busiest sample is not above this does nothing for those who hold it."""


class ComputeMode(StrEnum):
    """Who may open a context on a GPU."""

    DEFAULT = "default"
    EXCLUSIVE_THREAD = "exclusive_thread"
    PROHIBITED = "prohibited"
    EXCLUSIVE_PROCESS = "exclusive_process"


class RecoveryAction(StrEnum):
    """What the driver itself advises to do with a GPU."""

    NONE = "none"
    RESET_GPU = "reset_gpu"
    REBOOT_NODE = "reboot_node"
    DRAIN_P2P = "drain_p2p"
    DRAIN_AND_RESET = "drain_and_reset"
    RECOVER_IMEX_DOMAIN = "recover_imex_domain"
    RESET_BUS = "reset_bus"
    REBOOT_SYSTEM = "reboot_system"


class ClocksReason(StrEnum):
    """Why a GPU does not run at its highest clocks."""

    IDLE = "idle"
    APPLICATION_CLOCKS = "application_clocks"
    SW_POWER_CAP = "sw_power_cap"
    HW_SLOWDOWN = "hw_slowdown"
    SYNC_BOOST = "sync_boost"
    SW_THERMAL = "sw_thermal"
    HW_THERMAL = "hw_thermal"
    HW_POWER_BRAKE = "hw_power_brake"
    DISPLAY_CLOCKS = "display_clocks"


class FabricMisconfiguration(StrEnum):
    """What the fabric's health mask finds wrong in the configuration."""

    NONE = "none"
    SYSTEM_GUID = "system_guid"
    CHASSIS_SERIAL = "chassis_serial"
    NO_PARTITION = "no_partition"
    INSUFFICIENT_NVLINKS = "insufficient_nvlinks"
    INCOMPATIBLE_FIRMWARE = "incompatible_firmware"
    INVALID_LOCATION = "invalid_location"
    INVALID_GPU_STATE = "invalid_gpu_state"


class FabricSummary(StrEnum):
    """The driver's own verdict on a GPU's NVLink fabric."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    LIMITED_CAPACITY = "limited_capacity"


class FabricHealth(FrozenModel):
    """The health mask of a GPU's NVLink fabric, decoded; None: the driver does not say."""

    mask: NonNegativeInt
    summary: FabricSummary | None = None
    bandwidth_degraded: bool | None = None
    route_recovering: bool | None = None
    route_unhealthy: bool | None = None
    access_timeout_recovering: bool | None = None
    misconfiguration: FabricMisconfiguration | None = None
    partition_assigned: bool | None = None
    manager_connected: bool | None = None


class EccCounts(FrozenModel):
    """Memory errors since the driver was loaded (volatile) and of the board's life (aggregate)."""

    enabled: bool | None = None
    enabled_after_reset: bool | None = None
    volatile_corrected: NonNegativeInt | None = None
    volatile_uncorrected: NonNegativeInt | None = None
    aggregate_corrected: NonNegativeInt | None = None
    aggregate_uncorrected: NonNegativeInt | None = None


class RemappedRows(FrozenModel):
    """Rows of memory replaced by spares; ``pending`` wants a reset, ``failure`` a new board."""

    corrected: NonNegativeInt
    uncorrected: NonNegativeInt
    pending: bool
    failure: bool


class PortCounters(FrozenModel):
    """Errors and recoveries of one NVLink since its counters were cleared."""

    port: NonNegativeInt
    replays: NonNegativeInt | None = None
    recoveries: NonNegativeInt | None = None
    failed_recoveries: NonNegativeInt | None = None
    crc_errors: NonNegativeInt | None = None
    receive_errors: NonNegativeInt | None = None
    symbol_errors: NonNegativeInt | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.port)


class MigDevice(FrozenModel):
    """One MIG device of a GPU."""

    index: NonNegativeInt
    uuid: Annotated[GpuUuid | None, REPORTED] = None
    memory_bytes: PositiveInt | None = None
    gpu_instance: NonNegativeInt | None = None
    compute_instance: NonNegativeInt | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.index)


class GpuState(FrozenModel):
    """How the part in a GPU slot fares."""

    slot: NonNegativeInt
    compute_mode: ComputeMode | None = None
    mig_enabled: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    memory_used_bytes: Annotated[NonNegativeInt | None, REPORTED] = None
    memory_reserved_bytes: NonNegativeInt | None = None
    busy_ratio: Annotated[Ratio | None, REPORTED] = None
    memory_busy_ratio: Ratio | None = None
    temperature_celsius: Annotated[float | None, REPORTED] = None
    power_watts: Annotated[NonNegativeFloat | None, REPORTED] = None
    power_limit_watts: NonNegativeFloat | None = None
    clocks_reasons: Annotated[tuple[ClocksReason, ...] | None, REPORTED] = None
    pcie_generation_now: PositiveInt | None = None
    pcie_replays: NonNegativeInt | None = None
    ecc: Annotated[EccCounts | None, REPORTED] = None
    remapped_rows: Annotated[RemappedRows | None, REPORTED] = None
    recovery_action: Annotated[RecoveryAction | None, REPORTED] = None
    fabric_health: FabricHealth | None = None
    ports: tuple[PortCounters, ...] = ()

    @property
    def key(self) -> str:
        """Place in a path."""
        return str(self.slot)


class NicState(FrozenModel):
    """How a NIC port fares, in the kernel's words (``ACTIVE``, ``LinkUp``), and its firmware."""

    slot: NonNegativeInt
    port: PositiveInt
    logical_state: Text | None = None
    physical_state: Text | None = None
    firmware: Text | None = None
    link_downs: NonNegativeInt | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return f"{self.slot}/{self.port}"


class GpuProcess(FrozenModel):
    """A process that holds a GPU; ``idle`` None: the driver does not tell its use."""

    slot: NonNegativeInt
    pid: PositiveInt
    name: Text | None = None
    user: Text | None = None
    memory_bytes: NonNegativeInt | None = None
    busy_ratio: Ratio | None = None
    idle: bool | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return f"{self.slot}/{self.pid}"


class UnlistedWhy(StrEnum):
    """Why a GPU that is on the bus is not among the driver's."""

    EXCLUDED = "excluded"
    NOT_LISTED = "not_listed"
    OTHER_DRIVER = "other_driver"


class UnlistedGpu(FrozenModel):
    """A GPU of the node that the driver does not offer: excluded, given away, or not listed.

    ``driver`` is the name of the other driver that has it, as the kernel tells it.
    """

    pci_address: Pci
    why: UnlistedWhy
    uuid: GpuUuid | None = None
    driver: Text | None = None

    @property
    def key(self) -> str:
        """Place in a path."""
        return self.pci_address
