"""Machines that feed the fakes of the NVML library, read from YAML.

The keys are those of NVIDIA's nvml-mock where it has them; ours are the links' far ends, the place
in the rack, pairs, MIG devices and faults. A key that nobody reads is refused: a misspelt fault
must not silently be none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.nvml_machine import (
    FORBIDDEN,
    LOST,
    FakeC2c,
    FakeExcluded,
    FakeFabric,
    FakeGpu,
    FakeLink,
    FakeMig,
    FakePlatform,
    FakeProfile,
    Faults,
)

__all__ = ["NAMES", "FakeFabric", "FakeGpu", "FakeLink", "FakePlatform", "FakeProfile"]

PROFILES = Path(__file__).parent / "profiles"
NAMES = tuple(sorted(path.stem for path in PROFILES.glob("*.yaml")))
ON = {"enabled": 1, "disabled": 0, 1: 1, 0: 0}
ECC_KINDS = {"corrected": 0, "uncorrected": 1}
ECC_PERIODS = {"volatile": 0, "aggregate": 1}
OF_A_LINK = (*FakeLink.__dataclass_fields__,)

Raw = dict[str, Any]


@cache
def profile_named(name: str) -> FakeProfile:
    """A machine of tests/fakes/profiles."""
    return profile_from_text((PROFILES / f"{name}.yaml").read_text())


def profile_from_text(text: str) -> FakeProfile:
    """A machine from YAML."""
    return _profile(yaml.safe_load(text))


def with_faults(profile: FakeProfile, gpu: int | None = None, /, **faults: Any) -> FakeProfile:
    """The same machine with the faults that a profile would have under ``faults``.

    Of one GPU, or of the library: then with the keys of a machine's faults.
    """
    if gpu is None:
        return replace(profile, **_machine_faults(faults, profile))
    return profile.with_gpu(gpu, **_gpu_faults(faults))


def _profile(raw: Raw) -> FakeProfile:
    _only(
        raw,
        "the machine",
        "system device_defaults devices p2p topology fabric_versions lacks excluded faults",
    )
    system, p2p, topology = raw["system"], raw.get("p2p", {}), raw.get("topology", {})
    _only(system, "system", "driver_version nvml_version cuda_version")
    _only(p2p, "p2p", "default write")
    _only(topology, "topology", "default pairs")
    profile = FakeProfile(
        driver_version=system["driver_version"],
        nvml_version=system["nvml_version"],
        cuda_version=system["cuda_version"],
        gpus=tuple(_gpu(_merged(raw.get("device_defaults", {}), d)) for d in raw["devices"]),
        excluded=tuple(FakeExcluded(**excluded) for excluded in raw.get("excluded", ())),
        lacks=frozenset(raw.get("lacks", ())),
        fabric_versions=frozenset(raw.get("fabric_versions", ())),
        p2p=(p2p.get("default", 0), p2p.get("write", p2p.get("default", 0))),
        level=topology.get("default", 50),
        levels={(a, b): level for a, b, level in topology.get("pairs", ())},
    )
    return with_faults(profile, **raw.get("faults", {}))


def _machine_faults(raw: Raw, profile: FakeProfile) -> Raw:
    own = "init_code count_code lacks wrong_struct_version excluded"
    _only(raw, "the machine's faults", f"{own} returns hang delay_s undecodable after_calls")
    return {
        "init_code": raw.get("init_code", 0),
        "count_code": raw.get("count_code", 0),
        "lacks": profile.lacks | frozenset(raw.get("lacks", ())),
        "wrong_struct_version": frozenset(raw.get("wrong_struct_version", ())),
        "excluded": (*profile.excluded, *(FakeExcluded(**e) for e in raw.get("excluded", ()))),
        "faults": _faults(raw),
    }


def _gpu_faults(raw: Raw) -> Raw:
    _only(
        raw,
        "a device's faults",
        "lost no_permission returns hang delay_s undecodable after_calls",
    )
    codes = (LOST if raw.get("lost") else {}) | (FORBIDDEN if raw.get("no_permission") else {})
    return {"faults": _faults(raw), **codes}


def _faults(raw: Raw) -> Faults:
    return Faults(
        returns=raw.get("returns", {}),
        hangs=_names(raw.get("hang", ())),
        delay_s=raw.get("delay_s", {}),
        undecodable=_names(raw.get("undecodable", ())),
        after_calls=raw.get("after_calls", 0),
    )


def _names(one_or_more: str | Iterable[str]) -> frozenset[str]:
    return frozenset([one_or_more] if isinstance(one_or_more, str) else one_or_more)


def _only(raw: Mapping[str, Any], where: str, known: str) -> None:
    strangers = sorted(set(raw) - set(known.split()))
    assert not strangers, f"{where}: nobody reads {strangers}; known are {known}"


def _merged(defaults: Raw, device: Raw) -> Raw:
    """A device's own values over the defaults, section by section."""
    both = {
        name: _merged(defaults[name], device[name])
        for name in defaults.keys() & device.keys()
        if isinstance(defaults[name], dict) and isinstance(device[name], dict)
    }
    return {**defaults, **device, **both}


def _section(raw: Raw, name: str, known: str) -> Raw:
    section: Raw = raw.get(name) or {}
    _only(section, name, known)
    return section


def _gpu(raw: Raw) -> FakeGpu:
    _only(
        raw,
        "a device",
        "index uuid name serial board_part_number vbios_version module_id compute_capability "
        "memory pci pcie memory_affinity cpu_affinity memory_numa_node compute_mode "
        "persistence_mode utilization thermal power clocks_event_reasons ecc remapped_rows "
        "recovery_action mig c2c nvlink remote_link_offset fabric platform processes "
        "field_returns faults",
    )
    return FakeGpu(
        uuid=raw["uuid"],
        name=raw["name"],
        serial=raw.get("serial"),
        part_number=raw.get("board_part_number"),
        vbios=raw.get("vbios_version"),
        module_id=raw.get("module_id"),
        compute_capability=_pair(raw, "compute_capability", "major minor"),
        numa=_numbers(raw.get("memory_affinity")),
        numa_of_memory=raw.get("memory_numa_node"),
        cpus=_numbers(raw.get("cpu_affinity")),
        compute_mode=raw.get("compute_mode"),
        persistence=_on(raw.get("persistence_mode")),
        busy_percent=_pair(raw, "utilization", "gpu memory"),
        temperature_celsius=_section(raw, "thermal", "temperature_gpu_c").get("temperature_gpu_c"),
        clocks_reasons=raw.get("clocks_event_reasons"),
        recovery_action=raw.get("recovery_action"),
        c2c=FakeC2c(**raw["c2c"]) if raw.get("c2c") else None,
        links=_links(raw.get("nvlink"), raw.get("remote_link_offset", 0)),
        fabric=FakeFabric(**raw["fabric"]) if raw.get("fabric") else None,
        platform=FakePlatform(**raw["platform"]) if raw.get("platform") else None,
        field_returns=raw.get("field_returns", {}),
        **_board(raw),
        **_health(raw),
        **_mig(raw),
        **_processes(raw.get("processes", ())),
        **_gpu_faults(raw.get("faults", {})),
    )


def _board(raw: Raw) -> Raw:
    memory = _section(raw, "memory", "total_bytes used_bytes reserved_bytes")
    pci = _section(raw, "pci", "bus_id device_id subsystem_id")
    pcie = _section(
        raw,
        "pcie",
        "max_link_gen current_link_gen gpu_max_link_gen max_link_width current_link_width "
        "replay_counter",
    )
    return {
        "bus_id": pci["bus_id"],
        "device_id": pci.get("device_id", 0),
        "subsystem_id": pci.get("subsystem_id", 0),
        "memory_bytes": memory.get("total_bytes"),
        "memory_used_bytes": memory.get("used_bytes", 0),
        "memory_reserved_bytes": memory.get("reserved_bytes", 0),
        "pcie_gen": pcie.get("max_link_gen"),
        "pcie_gen_now": pcie.get("current_link_gen"),
        "pcie_gen_of_gpu": pcie.get("gpu_max_link_gen"),
        "pcie_width": pcie.get("current_link_width"),
        "pcie_width_most": pcie.get("max_link_width"),
        "pcie_replays": pcie.get("replay_counter"),
    }


def _health(raw: Raw) -> Raw:
    power = _section(raw, "power", "current_draw_mw enforced_limit_mw")
    ecc = _section(raw, "ecc", "mode_current mode_pending errors")
    rows = _section(raw, "remapped_rows", "correctable uncorrectable pending failure")
    errors = ecc.get("errors")
    return {
        "power_mw": power.get("current_draw_mw"),
        "power_limit_mw": power.get("enforced_limit_mw"),
        "ecc_mode": (ON[ecc["mode_current"]], ON[ecc["mode_pending"]]) if ecc else None,
        "ecc_errors": errors
        and {
            (ECC_KINDS[kind], ECC_PERIODS[period]): count
            for period, counts in errors.items()
            for kind, count in counts.items()
        },
        "remapped_rows": tuple(
            int(rows[name]) for name in ("correctable", "uncorrectable", "pending", "failure")
        )
        if rows
        else None,
    }


def _mig(raw: Raw) -> Raw:
    mig = _section(raw, "mig", "mode_current mode_pending max_devices devices")
    if not mig:
        return {}
    devices = (FakeMig(**{**one, "pids": tuple(one.get("pids", ()))}) for one in mig["devices"])
    return {
        "mig_mode": (ON[mig["mode_current"]], ON[mig["mode_pending"]]),
        "mig_most": mig["max_devices"],
        "mig": tuple(devices),
    }


def _processes(raw: Iterable[int | Raw]) -> Raw:
    """Process numbers, or what each uses."""
    found = [one if isinstance(one, dict) else {"pid": one} for one in raw]
    for one in found:
        _only(one, "a process", "pid used_memory_bytes sm_percent memory_percent")
    return {
        "pids": tuple(one["pid"] for one in found),
        "pid_bytes": {one["pid"]: one.get("used_memory_bytes", 0) for one in found},
        "pid_percent": {
            one["pid"]: (one["sm_percent"], one.get("memory_percent", 0))
            for one in found
            if "sm_percent" in one
        },
    }


def _on(written: str | None) -> int | None:
    return None if written is None else ON[written]


def _pair(raw: Raw, name: str, keys: str) -> tuple[int, int] | None:
    section = _section(raw, name, keys)
    first, second = keys.split()
    return (section[first], section[second]) if section else None


def _links(raw: Raw | None, offset: int) -> tuple[FakeLink, ...] | None:
    if raw is None:
        return None
    _only(raw, "nvlink", f"link_count links {' '.join(OF_A_LINK)}")
    links = raw.get("links", [{}] * raw["link_count"])
    assert len(links) == raw["link_count"]
    for link in links:
        _only(link, "a link", " ".join(OF_A_LINK))
    shared = {name: raw[name] for name in OF_A_LINK if name in raw}
    made = (FakeLink(**_merged(shared, link)) for link in links)
    return tuple(
        link if link.remote_link is None else replace(link, remote_link=link.remote_link + offset)
        for link in made
    )


def _numbers(ranges: str | None) -> tuple[int, ...] | None:
    if ranges is None:
        return None
    ends = [part.split("-") for part in ranges.split(",")]
    return tuple(n for end in ends for n in range(int(end[0]), int(end[-1]) + 1))
