import json

import pytest

from fleet.errors import FleetError, SnapshotError, StoreError
from fleet.fields import HostName
from fleet.sources import recorded
from fleet.store import bytes_from_document
from tests.factories import fleet_of, make_snapshot

OTHER = HostName("other")


@pytest.mark.parametrize("document", [make_snapshot(), fleet_of("model:dgx-h100 node:1")])
def test_own_documents_are_recognised_however_they_are_laid_out(document: object) -> None:
    text = bytes_from_document(document).decode()  # type: ignore[arg-type]
    assert recorded.recognises(text)
    assert recorded.recognises(text[:100])
    assert recorded.recognises(" \n" + json.dumps(json.loads(text), indent=2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"kind": "findings", "schema_version": 1}',
        '{"kind": "Pod", "metadata": {}}',
        'kind: "fleet_map"',
        '<system version="1"><!-- "kind": "fleet_map" -->',
        '["kind": "fleet_map"]',
        "\tGPU0\tGPU1",
    ],
)
def test_other_texts_are_not(text: str) -> None:
    assert not recorded.recognises(text)


def test_snapshot_keeps_its_own_host() -> None:
    snapshot = make_snapshot("node7")
    content = bytes_from_document(snapshot)
    assert recorded.read(content, where="a.json", host=OTHER) == (snapshot,)


def test_map_comes_back_whole() -> None:
    fleet = fleet_of("model:gb200-nvl72 node:2")
    assert recorded.read(bytes_from_document(fleet), where="a.json", host=OTHER) == fleet


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"kind": "fleet_map", "schema_version": 2}', StoreError),
        (b'{"kind": "fleet_map", "schema_version": 1', StoreError),
        (b'{"kind": "node_snapshot", "schema_version": 1}', SnapshotError),
    ],
)
def test_document_that_breaks_its_rules_is_refused(content: bytes, kind: type[FleetError]) -> None:
    assert recorded.recognises(content.decode())
    with pytest.raises(kind) as caught:
        recorded.read(content, where="a.json", host=OTHER)
    assert caught.value.where == "a.json"
