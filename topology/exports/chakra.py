"""Chakra: an execution trace of one collective, as protobuf. No schedule, no figure.

Field and enum numbers are those of Chakra's schema 0.0.4 (``et_def.proto``, package
``ChakraProtoMsg``), from memory: no copy of it was at hand to check them against. Each message has
its length as a varint before it; the first is the global metadata.
"""

from enum import IntEnum
from typing import Final

SCHEMA_VERSION: Final = "0.0.4"

COMM_COLL_NODE: Final = 7
"""Node type of a collective."""

_VARINT, _LENGTH = 0, 2
_METADATA_VERSION: Final = 1
_NODE_ID, _NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE = 1, 2, 3, 10
_ATTRIBUTE_NAME, _INT64_VALUE, _BOOL_VALUE = 1, 9, 27
"""``doc_string`` is 2, and the values of each type follow it from 3 on."""


class CommType(IntEnum):
    """Chakra's numbers of the collectives that ASTRA-sim runs."""

    ALL_REDUCE = 0
    ALL_GATHER = 2
    ALL_TO_ALL = 6
    REDUCE_SCATTER = 7


def varint(number: int) -> bytes:
    """A number in base 128, least significant group first; all but the last have the high bit.

    >>> varint(1).hex(), varint(300).hex()
    ('01', 'ac02')
    """
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def number_field(field: int, number: int) -> bytes:
    """A field that holds an integer, a bool or an enum.

    >>> number_field(1, 150).hex()
    '089601'
    """
    return varint(field << 3 | _VARINT) + varint(number)


def bytes_field(field: int, content: bytes) -> bytes:
    """A field that holds text or a message.

    >>> bytes_field(2, b"testing").hex()
    '120774657374696e67'
    """
    return varint(field << 3 | _LENGTH) + varint(len(content)) + content


def collective_trace(name: str, comm_type: CommType, size_bytes: int) -> bytes:
    """The trace of a rank that takes part in one collective and does nothing else."""
    node = (
        number_field(_NODE_ID, 1)
        + bytes_field(_NODE_NAME, name.encode())
        + number_field(_NODE_TYPE, COMM_COLL_NODE)
        + _attribute("is_cpu_op", number_field(_BOOL_VALUE, 0))
        + _attribute("comm_type", number_field(_INT64_VALUE, comm_type))
        + _attribute("comm_size", number_field(_INT64_VALUE, size_bytes))
    )
    metadata = bytes_field(_METADATA_VERSION, SCHEMA_VERSION.encode())
    return b"".join(varint(len(message)) + message for message in (metadata, node))


def _attribute(name: str, value: bytes) -> bytes:
    return bytes_field(_NODE_ATTRIBUTE, bytes_field(_ATTRIBUTE_NAME, name.encode()) + value)
