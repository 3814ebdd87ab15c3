"""Makes jobs for the tests of the closed form: by hand, and of synthetic maps."""

from functools import cache

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack
from topology.fabric.route_table import RouteMap
from topology.latency.job import Architecture, Cpu, Intra, IntraKind, Job, Net, NetKind, job_of

H100_NVLINK = Intra(IntraKind.NVSWITCH, alpha_s=0.762e-6, bytes_per_s=450e9)
V100_NVLINK = Intra(IntraKind.NVLINK, alpha_s=0.7e-6, bytes_per_s=150e9)
PCIE4 = Intra(IntraKind.PCIE, alpha_s=1.3e-6, bytes_per_s=16e9)
EIGHT_NDR = Net(NetKind.INFINIBAND, alpha_s=2.3e-6, bytes_per_s=400e9)
_IN_SWITCH = (Architecture.HOPPER, Architecture.BLACKWELL)


def make_job(
    cliques: int = 1,
    per_clique: int = 8,
    *,
    architecture: Architecture = Architecture.HOPPER,
    cpu: Cpu = Cpu.INTEL,
    intra: Intra = H100_NVLINK,
    net: Net = EIGHT_NDR,
) -> Job:
    """Cliques of GPUs that are all alike: DGX H100s, but for the changes."""
    has_switch = intra.kind is IntraKind.NVSWITCH and architecture in _IN_SWITCH
    return Job(
        ranks=cliques * per_clique,
        cliques=cliques,
        per_clique=per_clique,
        architecture=architecture,
        cpu=cpu,
        intra=intra if per_clique > 1 else None,
        net=net if cliques > 1 else None,
        reduces_in_switch=has_switch,
    )


@cache
def job_on(spec: str, ranks: int) -> Job:
    """The job of the first ranks of a synthetic fleet, such as ``dgx-h100 node:2``."""
    fabric = fabric_of(spec)
    placement = pack(fabric, ranks)
    return job_of(fabric, placement, RouteMap(fabric, placement.endpoints))
