import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fleet.fields import Pci
from fleet.sources.pci import guid_from_text, is_hidden_address, pci_address_from_text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:18:00.0", "00000000:18:00.0"),
        ("0000:18:00.0", "00000000:18:00.0"),
        ("00000000:1B:00.0", "00000000:1b:00.0"),
        ("1:2:3.4", "00000001:02:03.4"),
        ("18:00.0", "00000000:18:00.0"),
        ("18:00", "00000000:18:00.0"),
        ("0008:01:00", "00000008:01:00.0"),
        ("  0000:18:00.0\n", "00000000:18:00.0"),
        ("ffffffff:18:00.0", "ffffffff:18:00.0"),
    ],
)
def test_address_is_kept_in_one_form(text: str, address: str) -> None:
    assert pci_address_from_text(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "N/A",
        "18",
        "18:00.00",
        "0000:18:00.g",
        "000000000:18:00.0",
        "0000:118:00.0",
        "a b",
        "٣:0",
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert pci_address_from_text(text) is None


@pytest.mark.parametrize(
    ("text", "is_hidden"),
    [
        ("fffffff:ffff:ff", True),
        ("fffffff:ff:ff.0", True),
        ("FFFFFFFF:FF:FF.0", True),
        (" ffffffff:ff:ff.0 ", True),
        ("ffff:ff:ff.0", False),
        ("0000:ff:1f.0", False),
        ("ff:ff.0", False),
        ("", False),
    ],
)
def test_all_ones_is_a_hidden_device(text: str, is_hidden: bool) -> None:
    assert is_hidden_address(text) is is_hidden
    if is_hidden:
        assert pci_address_from_text(text) is None


@given(st.integers(0, 0xFFFFFFFE), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
def test_every_address_comes_back_in_the_form_of_the_model(
    domain: int, bus: int, device: int, function: int
) -> None:
    kept = f"{domain:08x}:{bus:02x}:{device:02x}.{function:x}"
    assert pci_address_from_text(f"{domain:04X}:{bus:02X}:{device:02X}.{function}") == kept
    assert pci_address_from_text(kept) == kept


@given(st.text(max_size=24))
def test_any_text_gives_a_legal_address_or_none(text: str) -> None:
    address = pci_address_from_text(text)
    if address is not None:
        TypeAdapter(Pci).validate_python(address)


@pytest.mark.parametrize(
    ("text", "guid"),
    [
        ("0x2c9020046c588", "0002c9020046c588"),
        ("0002:c902:0046:c588", "0002c9020046c588"),
        ("0X2C9020046C588", "0002c9020046c588"),
        ("0x10", "0000000000000010"),
        ("0xf", None),
        ("0x0", None),
        ("", None),
        ("0x", None),
        ("0xREDACTED", None),
        ("0x11112222333344445", None),
        ("-1", None),
    ],
)
def test_guid_is_sixteen_digits_and_a_counter_is_none(text: str, guid: str | None) -> None:
    assert guid_from_text(text) == guid


@given(st.integers(16, 2**64 - 1))
def test_every_guid_comes_back(number: int) -> None:
    assert guid_from_text(f"{number:#x}") == f"{number:016x}"
