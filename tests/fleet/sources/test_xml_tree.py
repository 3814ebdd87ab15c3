import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import SourceError
from fleet.sources import xml_tree
from fleet.sources.xml_tree import DEEPEST, parse_xml

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY x "0123456789"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>
<a>&y;</a>"""
STOLEN = b"""<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<a>&x;</a>"""


def refusal_of(content: bytes) -> SourceError:
    with pytest.raises(SourceError) as caught:
        parse_xml(content, where="a.xml")
    assert str(caught.value).startswith("a.xml: line ")
    assert caught.value.remedy
    return caught.value


def test_tree_has_attributes_children_text_and_lines() -> None:
    root = parse_xml(
        b'<system version="1" empty="">\n <cpu numaid="0"> a <b/> c </cpu>\n <cpu/>\n</system>',
        where="a.xml",
    )
    assert (root.tag, root.line, root.get("version")) == ("system", 1, "1")
    assert (root.get("empty"), root.get("none")) == (None, None)
    assert [(cpu.tag, cpu.line) for cpu in root.all("cpu")] == [("cpu", 2), ("cpu", 3)]
    assert root.children[0].text == "a  c"
    assert root.all("gpu") == []


def test_path_leads_to_the_first_element_or_to_none() -> None:
    root = parse_xml(b"<a><b n='1'><c/></b><b n='2'/></a>", where="a.xml")
    found = root.find("b")
    assert found is not None
    assert found.get("n") == "1"
    assert root.find("b", "c") is found.children[0]
    assert root.find("b", "d") is None
    assert root.find() is root


def test_blank_lines_before_the_document_are_counted() -> None:
    assert parse_xml(b"\n\n \n<a>\n<b/></a>", where="a.xml").children[0].line == 5
    assert refusal_of(b"\n\n\n<a>\n<b></a>").field == "line 5"


def test_doctype_is_accepted_and_not_fetched() -> None:
    text = (
        b'<?xml version="1.0"?>\n<!DOCTYPE log SYSTEM "nvsmi_device_v12.dtd">\n<log><a>1</a></log>'
    )
    element = parse_xml(text, where="a.xml").find("a")
    assert element is not None
    assert element.text == "1"


@pytest.mark.parametrize("content", [BOMB, STOLEN], ids=["bomb", "file"])
def test_entities_are_refused_before_they_are_expanded(content: bytes) -> None:
    refusal = refusal_of(content)
    assert "declares an entity" in str(refusal)
    assert refusal.field == "line 2"


@pytest.mark.parametrize(
    ("content", "part", "line"),
    [
        (b"", "no element found", "line 1"),
        (b"hello", "syntax error", "line 1"),
        (b"<a>\n<b>", "no element found inside <b>", "line 2"),
        (b"<a>\n<b x='1", "unclosed token inside <a>", "line 2"),
        (b"<a></b>", "mismatched tag inside <a>", "line 1"),
        (b"<a/>\n<a/>", "junk after document element", "line 2"),
        (b"<a>\xff</a>", "not well-formed", "line 1"),
        (b"<a x='1' x='2'/>", "duplicate attribute", "line 1"),
        (b"<a>&nbsp;</a>", "undefined entity", "line 1"),
        (b"<a>\0</a>", "not well-formed", "line 1"),
    ],
)
def test_broken_xml_is_refused_with_its_line(content: bytes, part: str, line: str) -> None:
    refusal = refusal_of(content)
    assert part in str(refusal)
    assert refusal.field == line


@pytest.mark.parametrize("encoding", ["x-none", "utf-7", "idna"])
def test_encoding_that_cannot_be_read_is_refused(encoding: str) -> None:
    refusal_of(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode())


def test_text_of_other_encodings_is_read() -> None:
    for encoding in ("utf-8", "iso-8859-1", "utf-16"):
        content = f'<?xml version="1.0" encoding="{encoding}"?><a>é</a>'.encode(encoding)
        assert parse_xml(content, where="a.xml").text == "é"


def test_depth_is_bounded() -> None:
    parse_xml(b"<a>" * DEEPEST + b"</a>" * DEEPEST, where="a.xml")
    assert f"more than {DEEPEST} levels" in str(refusal_of(b"<a>" * (DEEPEST + 1)))


def test_count_of_elements_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_tree, "MOST_ELEMENTS", 10)
    parse_xml(b"<a>" + b"<b/>" * 9 + b"</a>", where="a.xml")
    assert "or 10 elements" in str(refusal_of(b"<a>" + b"<b/>" * 10 + b"</a>"))


def test_long_text_takes_time_in_proportion() -> None:
    began = time.perf_counter()
    root = parse_xml(b"<a>" + b"x\n&amp;" * 200_000 + b"</a>", where="a.xml")
    assert len(root.text) == 600_000
    assert time.perf_counter() - began < 5


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 60))
def test_no_bytes_make_another_error(junk: bytes, at: int, cut: int) -> None:
    good = b'<system version="1">\n<cpu numaid="0" affinity="ff"><pci/></cpu></system>'
    with contextlib.suppress(SourceError):
        parse_xml(junk, where="a.xml")
    with contextlib.suppress(SourceError):
        parse_xml(good[:at] + junk + good[at + cut :], where="a.xml")
