"""Chakra traces: decoded again by protobuf itself, with the schema the module says it writes."""

from typing import Any

import pytest

from topology.exports.chakra import COMM_COLL_NODE, CommType, bytes_field, collective_trace, varint

protobuf = pytest.importorskip("google.protobuf", reason="protobuf is not installed")

Messages = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> Messages:
    """The part of Chakra's schema 0.0.4 that a collective needs, as message classes."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="et_def.proto", package="ChakraProtoMsg", syntax="proto3"
    )

    def add(message: str, *fields: tuple[str, int, int, str]) -> None:
        described = file.message_type.add(name=message)
        for name, number, kind, of in fields:
            row = described.field.add(name=name, number=number, type=kind, label=1)
            if of.startswith("repeated"):
                row.label = types.LABEL_REPEATED
            if kind == types.TYPE_MESSAGE:
                row.type_name = ".ChakraProtoMsg.AttributeProto"
            if of == "value":
                row.oneof_index = 0
        if any(of == "value" for *_, of in fields):
            described.oneof_decl.add(name="value")

    add(
        "AttributeProto",
        ("name", 1, types.TYPE_STRING, ""),
        ("int64_val", 9, types.TYPE_INT64, "value"),
        ("bool_val", 27, types.TYPE_BOOL, "value"),
    )
    add("GlobalMetadata", ("version", 1, types.TYPE_STRING, ""))
    add(
        "Node",
        ("id", 1, types.TYPE_UINT64, ""),
        ("name", 2, types.TYPE_STRING, ""),
        ("type", 3, types.TYPE_INT32, ""),
        ("attr", 10, types.TYPE_MESSAGE, "repeated"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"ChakraProtoMsg.{name}")  # type: ignore[no-untyped-call]
        )
        for name in ("GlobalMetadata", "Node")
    }


def framed(content: bytes) -> list[bytes]:
    """Messages with their length before each, by protobuf's own decoder of varints."""
    from google.protobuf.internal import decoder

    messages, place = [], 0
    while place < len(content):
        size, place = decoder._DecodeVarint32(content, place)
        messages.append(content[place : place + size])
        place += size
    return messages


@pytest.mark.parametrize(
    ("comm_type", "size_bytes"),
    [(CommType.ALL_REDUCE, 1 << 20), (CommType.REDUCE_SCATTER, 1), (CommType.ALL_GATHER, 1 << 40)],
)
def test_protobuf_reads_back_what_was_written(
    schema: Messages, comm_type: CommType, size_bytes: int
) -> None:
    metadata, node = framed(collective_trace("all_reduce", comm_type, size_bytes))
    assert schema["GlobalMetadata"].FromString(metadata).version == "0.0.4"
    read = schema["Node"].FromString(node)
    assert (read.id, read.name, read.type) == (1, "all_reduce", COMM_COLL_NODE)
    values = {a.name: getattr(a, a.WhichOneof("value")) for a in read.attr}
    assert values == {"is_cpu_op": False, "comm_type": int(comm_type), "comm_size": size_bytes}


def test_protobuf_writes_the_same_bytes(schema: Messages) -> None:
    node = schema["Node"](id=1, name="all_reduce", type=7)
    node.attr.add(name="is_cpu_op", bool_val=False)
    node.attr.add(name="comm_type", int64_val=0)
    node.attr.add(name="comm_size", int64_val=4096)
    written = node.SerializeToString(deterministic=True)
    _, ours = framed(collective_trace("all_reduce", CommType.ALL_REDUCE, 4096))
    assert ours == written


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, 2**40, 2**63 - 1])
def test_varints_are_protobufs(number: int) -> None:
    from google.protobuf.internal import decoder

    assert decoder._DecodeVarint(varint(number), 0) == (number, len(varint(number)))


def test_a_long_field_has_a_long_length() -> None:
    assert bytes_field(2, b"x" * 300) == b"\x12\xac\x02" + b"x" * 300
