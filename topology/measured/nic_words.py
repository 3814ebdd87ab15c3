"""What people write of a run's NICs and clouds, as words of a SPEC. No GPU, no map."""

import re
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class NicWords:
    """Words of a SPEC for a run's network; None where the text does not tell.

    ``gbit_per_s``: rate of one port, one direction, as such texts count it.
    """

    network: str | None = None
    count: int | None = None
    gbit_per_s: float | None = None
    cpu: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """As they stand in a SPEC."""
        rate = None if self.gbit_per_s is None else f"{self.gbit_per_s:g}Gbit/s"
        words = {"network": self.network, "nic": self.count, "nic_rate": rate, "cpu": self.cpu}
        return " ".join(f"{name}:{word}" for name, word in words.items() if word is not None)


def _cloud(network: str, count: int, gbit_per_s: float, cpu: str) -> NicWords:
    return NicWords(network, count, gbit_per_s, cpu)


# Instances as their clouds publish them: network, NICs a node, rate of each, CPU. First match wins.
_CLOUDS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"\bp3dn\b", _cloud("efa-v1", 1, 100, "intel")),
        (r"\bp4de?\b", _cloud("efa-v1", 4, 100, "intel")),
        (r"\bp5en\b", _cloud("efa-v3", 16, 200, "intel")),
        (r"\bp5e?\b", _cloud("efa-v2", 32, 100, "amd")),
        (r"\bp6e[- ]?gb[23]00\b", _cloud("efa-v4", 4, 400, "arm")),
        (r"\bp6[- ]?b300\b", _cloud("efa-v4", 16, 400, "intel")),
        (r"\bp6\b", _cloud("efa-v4", 8, 400, "intel")),
        (r"\bg[56]e?\.(?:48|24|16|12)xlarge\b", _cloud("efa-v1", 1, 100, "amd")),
        (r"\ba2[- ](?:high|ultra|mega)gpu\b", _cloud("ethernet", 1, 100, "intel")),
        (r"\ba3[- ]?high(?:gpu)?\b", _cloud("tcpxo", 4, 200, "intel")),
        (r"\ba3[- ]?mega(?:gpu)?\b", _cloud("tcpxo", 8, 200, "intel")),
        (r"\ba3[- ]?ultra(?:gpu)?\b", _cloud("roce", 8, 400, "intel")),
        (r"\ba4x\b", _cloud("roce", 4, 400, "arm")),
        (r"\b(?:gke|gcp|google)[ -]a4\b|\ba4[- ]highgpu\b", _cloud("roce", 8, 400, "intel")),
        (r"\bnd[\w -]{0,20}v2\b", _cloud("ib-edr", 1, 100, "intel")),
        (r"\bnd[\w -]{0,20}v4\b", _cloud("ib-hdr", 8, 200, "amd")),
        (r"\bnd[\w -]{0,24}v5\b", _cloud("ib-ndr", 8, 400, "intel")),
        (r"\bnd[\w -]{0,24}v6\b", _cloud("ib-ndr", 4, 400, "arm")),
        (r"\bbm\.gpu(?:4|\.b4|\.a100-v2)\.8\b", _cloud("roce", 16, 100, "amd")),
        (r"\bbm\.gpu\.h100\.8\b", _cloud("roce", 16, 200, "intel")),
        (r"\bbm\.gpu\.(?:h200|b200|mi300x)\.8\b", _cloud("roce", 8, 400, "intel")),
        (r"\bbm\.gpu\.gb200\.4\b", _cloud("roce", 4, 400, "arm")),
        (r"\boci\b.*\bgb300\b", _cloud("roce", 8, 400, "arm")),
        (r"\bbm\.gpu\.gb300\.4\b", _cloud("roce", 8, 400, "arm")),
    )
)

_KINDS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), network)
    for pattern, network in (
        (r"\befa\b|elastic fabric", "efa"),
        (r"tcpxo?\b|fastrak", "tcpxo"),
        (r"slingshot|\bcxi\b|cassini", "slingshot"),
        (r"\baries\b", "aries"),
        (r"roce|\bgib\b|pollara|bnxt|\bthor|spectrum-?[x45]", "roce"),
        (r"\bib\b|infiniband|[xnhef]dr\d*\b|quantum", "ib"),
        (r"ethernet|\btcp\b|gvnic|\d+ ?gbe\b|sockets?\b", "ethernet"),
    )
)
_COUNT: Final = re.compile(r"(?<![\w.])(\d{1,3})\s*[xX*\u00d7]\s*(?=\D|\d+ ?G)")
_COUNTED: Final = re.compile(r"\b(\d{1,3})\s+(?:nics?|hcas?|adapters?|rails?|ports?)\b", re.I)
_GBIT: Final = re.compile(r"(?<![\w.])(\d{1,4}(?:\.\d+)?)\s*G(?!B|i?B/s)(?:b\w*(?:/s|ps)?|E)?\b")
_GBYTES: Final = re.compile(r"(?<![\w.~])(\d{1,3}(?:\.\d+)?)\s*GB/s(?! *(?:busbw|ceiling))")
_DATA_RATE: Final = re.compile(r"(?<![a-z])([xnhef])dr-?(\d{2,4})?(?![a-z0-9])", re.IGNORECASE)
_DATA_RATE_GBIT: Final = {"f": 56, "e": 100, "h": 200, "n": 400, "x": 800}
_CARDS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), gbit)
    for pattern, gbit in (
        (r"(?:cx|connectx)[- ]?[45]", 100),
        (r"(?:cx|connectx)[- ]?6|bluefield[- ]?2|\bbf2", 200),
        (r"(?:cx|connectx)[- ]?7|bluefield[- ]?3|\bbf3", 400),
        (r"(?:cx|connectx)[- ]?8", 800),
        (r"pollara|\bthor ?2|bnxt", 400),
    )
)
_CEILING: Final = re.compile(r"~?\s*(\d+(?:\.\d+)?)\s*GB/s\s+(?:busbw\s+)?ceiling", re.IGNORECASE)
_PORT_RATES_GBIT: Final = (1, 10, 25, 40, 50, 100, 200, 400, 800)
_CPUS: Final = (
    (re.compile(r"\bepyc\b|\b(?:rome|milan|genoa|turin) cpu", re.IGNORECASE), "amd"),
    (re.compile(r"\bxeon\b|\bintel cpu|sapphire rapids|ice ?lake", re.IGNORECASE), "intel"),
    (re.compile(r"\bgrace\b|\barm64\b|\baarch64\b", re.IGNORECASE), "arm"),
)


def nic_words(*, nic: str, fabric: str, remarks: str = "") -> NicWords:
    """The words for what a run's columns say of its network, a cloud's instance filling the gaps.

    ``remarks``: further text that may name an instance or a CPU.

    >>> nic_words(nic="8x CX7 NDR400 IB", fabric="IB").spec
    'network:ib-ndr nic:8 nic_rate:400Gbit/s'
    >>> nic_words(nic="GPUDirect-TCPXO, GKE A3 Mega", fabric="Ethernet (TCPXO)").spec
    'network:tcpxo nic:8 nic_rate:200Gbit/s cpu:intel'
    """
    every = f"{nic} {fabric} {remarks}"
    told = NicWords(
        network=_first(_KINDS, f"{nic} {fabric}"),
        count=_nic_count(nic),
        gbit_per_s=_nic_rate(nic),
        cpu=next((cpu for pattern, cpu in _CPUS if pattern.search(every)), None),
    )
    cloud = next((words for pattern, words in _CLOUDS if pattern.search(every)), None)
    return _named(_with_ceiling(_filled(told, cloud) if cloud else told, nic))


def foreign_network(*, nic: str, fabric: str) -> str | None:
    """A network that is named and that no SPEC has, None where there is none.

    >>> foreign_network(nic="1x Omni-Path 100", fabric="OPA")
    'Omni-Path'
    """
    match = _FOREIGN.search(f"{nic} {fabric}")
    return match[0] if match else None


_FOREIGN: Final = re.compile(
    r"omni-?path|\bopa\b|\bmyrinet|\bbxi\b|\btofu|\bgemini\b|slingshot-?10|\bici\b", re.IGNORECASE
)


def _filled(told: NicWords, cloud: NicWords) -> NicWords:
    """What the text tells; what it leaves out is the cloud's, if that speaks the same."""
    same = told.network is None or (cloud.network or "").startswith(told.network)
    if not same:
        return replace(told, cpu=told.cpu or cloud.cpu)
    return NicWords(
        network=cloud.network,
        count=told.count or cloud.count,
        gbit_per_s=told.gbit_per_s or cloud.gbit_per_s,
        cpu=told.cpu or cloud.cpu,
    )


def _with_ceiling(words: NicWords, nic: str) -> NicWords:
    """A rate from what the poster saw as a ceiling, where no more is told: the next port rate."""
    match = _CEILING.search(nic)
    if match is None or words.gbit_per_s is not None:
        return words
    rate = next((r for r in _PORT_RATES_GBIT if r >= 8 * float(match[1])), _PORT_RATES_GBIT[-1])
    note = f"assumed: one NIC of {rate} Gbit/s, the next rate above {match[0].strip()}"
    return replace(words, count=words.count or 1, gbit_per_s=float(rate), notes=(note,))


def _named(words: NicWords) -> NicWords:
    """InfiniBand and EFA by their generation, where a rate tells it."""
    rate = words.gbit_per_s
    if words.network == "ib" and rate is not None:
        fits = (name for most, name in _IB_BY_GBIT if rate <= most)
        return replace(words, network=next(fits, "ib-xdr"))
    if words.network == "efa":
        newer = {200.0: "efa-v3", 400.0: "efa-v4"}
        return replace(words, network=newer.get(rate or 100.0, "efa"), gbit_per_s=rate or 100.0)
    return words


_IB_BY_GBIT: Final = ((56, "ib-fdr"), (100, "ib-edr"), (200, "ib-hdr"), (400, "ib-ndr"))


def _first(patterns: tuple[tuple[re.Pattern[str], str], ...], text: str) -> str | None:
    return next((word for pattern, word in patterns if pattern.search(text)), None)


def _nic_count(nic: str) -> int | None:
    match = _COUNT.search(nic) or _COUNTED.search(nic)
    return int(match[1]) or None if match else None


def _nic_rate(nic: str) -> float | None:
    """Rate of one port: as it stands, by InfiniBand's name for it, or by the card. [Gbit/s]"""
    if match := _GBIT.search(nic):
        return float(match[1])
    if match := _GBYTES.search(nic):
        return 8 * float(match[1])
    if match := _DATA_RATE.search(nic):
        return float(match[2] or _DATA_RATE_GBIT[match[1].lower()])
    return next((float(gbit) for pattern, gbit in _CARDS if pattern.search(nic)), None)
