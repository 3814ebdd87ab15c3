"""PCI addresses and GUIDs in the one form the model keeps. Pure text, no reading."""

import re
from typing import Final

from fleet.fields import PciAddress

_ADDRESS: Final = re.compile(
    r"(?:(?P<domain>[0-9a-f]{1,8}):)?(?P<bus>[0-9a-f]{1,2}):(?P<device>[0-9a-f]{1,2})"
    r"(?:\.(?P<function>[0-9a-f]))?"
)


def pci_address_from_text(text: str) -> PciAddress | None:
    """``dddddddd:bb:dd.f`` in lower case; None for what is no address (all f: hidden).

    The domain is kept: virtual machines give every device a domain of its own.

    >>> pci_address_from_text("0000:18:00.0"), pci_address_from_text("fffffff:ff:ff.0")
    ('00000000:18:00.0', None)
    """
    match = _ADDRESS.fullmatch(text.strip().lower())
    if match is None or is_hidden_address(text):
        return None
    domain, bus, device = (int(match[name] or "0", 16) for name in ("domain", "bus", "device"))
    return PciAddress(f"{domain:08x}:{bus:02x}:{device:02x}.{match['function'] or '0'}")


def is_hidden_address(text: str) -> bool:
    """Whether a driver put all ones where it hides the device (an NVSwitch, in a VM or rack).

    >>> is_hidden_address("fffffff:ff:ff.0"), is_hidden_address("0000:ff:1f.0")
    (True, False)
    """
    digits = re.sub(r"[^0-9a-fA-F]", "", text.strip().partition(".")[0]).lower()
    return len(digits) > 8 and set(digits) == {"f"}


def guid_from_text(text: str) -> str | None:
    """GUID as 16 hexadecimal digits; None for counters of socket NICs (0x0 to 0xf) and others.

    >>> guid_from_text("0x2c9020046c588"), guid_from_text("0x3"), guid_from_text("0xREDACTED")
    ('0002c9020046c588', None, None)
    """
    digits = text.strip().lower().removeprefix("0x").replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{1,16}", digits) or int(digits, 16) < 16:
        return None
    return digits.zfill(16)
