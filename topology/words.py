"""The closed sets of words that commands, files and the library share. Imports nothing heavy."""

from enum import StrEnum


class Collective(StrEnum):
    """What the ranks want done."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALLTOALL = "alltoall"
    ALLTOALLV = "alltoallv"
    BROADCAST = "broadcast"
    REDUCE = "reduce"
    SENDRECV = "sendrecv"


class AlgorithmName(StrEnum):
    """How it is done; auto: the fastest without noise."""

    AUTO = "auto"
    RING = "ring"
    TREE = "tree"
    DOUBLE_BINARY_TREE = "double_binary_tree"
    RECURSIVE_DOUBLING = "recursive_doubling"
    NVLS = "nvls"
    NVLS_TREE = "nvls_tree"
    COLLNET = "collnet"
    PAT = "pat"
    HIERARCHICAL = "hierarchical"
    ONE_SHOT = "one_shot"
    TWO_SHOT = "two_shot"
    DIRECT = "direct"
    PAIRWISE = "pairwise"


class StackName(StrEnum):
    """Whose software is counted; wire: none; nccl-tuner: NCCL's own prediction, uncalibrated."""

    NCCL = "nccl"
    WIRE = "wire"
    NCCL_TUNER = "nccl-tuner"
    RCCL = "rccl"
    MPI = "mpi"


class Protocol(StrEnum):
    """NCCL's protocols."""

    LL = "ll"
    LL128 = "ll128"
    SIMPLE = "simple"


class ProtocolChoice(StrEnum):
    """A protocol, or the fastest."""

    AUTO = "auto"
    LL = "ll"
    LL128 = "ll128"
    SIMPLE = "simple"

    @property
    def protocol(self) -> Protocol | None:
        """The protocol that is forced, None for the fastest."""
        return None if self is ProtocolChoice.AUTO else Protocol(self.value)


class Launch(StrEnum):
    """How the operation is started.

    A process for each GPU, a thread for each in one process, one thread for all of a node, a CUDA
    graph; eager: by a framework such as PyTorch, whose calls take longer than small operations.
    """

    PROCESS = "process"
    THREADS = "threads"
    THREAD = "thread"
    GRAPH = "graph"
    EAGER = "eager"


class DType(StrEnum):
    """Type of an element. No NVSwitch of Hopper's sums integers."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    FP8 = "fp8"
    INT8 = "int8"
    INT32 = "int32"
    INT64 = "int64"

    @property
    def is_integer(self) -> bool:
        """Whether it is a whole number."""
        return self.value.startswith("int")


class NoiseName(StrEnum):
    """Noise profiles, quietest first."""

    NONE = "none"
    DEDICATED = "dedicated"
    SHARED = "shared"
    CONTENDED = "contended"


class NoiseLayer(StrEnum):
    """Noise beyond single messages; each can be switched on by itself.

    skew: ranks start late; stall: the CPU that posts a rank's sends is away; episode: minutes in
    which a host's links are slow; slow: hosts that are slow for good; correlated: bursts that hit
    all of a leaf or host; collision: flows of static routing that share an uplink.
    """

    SKEW = "skew"
    STALL = "stall"
    EPISODE = "episode"
    SLOW = "slow"
    CORRELATED = "correlated"
    COLLISION = "collision"


class MethodName(StrEnum):
    """How percentiles are found.

    exact: distribution algebra with a certified bracket, where messages form trees; monte_carlo:
    replay of noisy trials; scaling: a law of growth, for rings too long to replay. auto: replay
    where it takes seconds, else whichever of the others applies.
    """

    AUTO = "auto"
    EXACT = "exact"
    MONTE_CARLO = "monte_carlo"
    SCALING = "scaling"


class TailModel(StrEnum):
    """Laws that carry a percentile beyond the samples that were measured.

    lognormal: the whole sample as a floor and a log-normal (tails of fabrics are heavier); gpd: a
    generalised Pareto law of what lies above the p90 (without an upper end where its shape is 0 or
    more, and real detours have one).
    """

    LOGNORMAL = "lognormal"
    GPD = "gpd"


class Objective(StrEnum):
    """What a plan makes small."""

    P50 = "p50"
    P90 = "p90"
    P99 = "p99"
    P999 = "p999"

    @property
    def key(self) -> str:
        """Its name among a summary's percentiles."""
        return f"{self.value}_s"


class ExportFormat(StrEnum):
    """Simulators that a case is written for: LogGOPSim's GOAL, ASTRA-sim, SimAI."""

    GOAL = "goal"
    ASTRA_SIM = "astra-sim"
    SIMAI = "simai"


class View(StrEnum):
    """What a diagram shows."""

    RACKS = "racks"
    FABRIC = "fabric"
    NODE = "node"


class DocumentKind(StrEnum):
    """Documents that people write for us."""

    WORKLOAD = "workload"
    STEP = "step"
