"""XML as a small tree with line numbers, safe on files from anywhere.

A DOCTYPE is accepted (every nvidia-smi file has one) but nothing is fetched and no entity is
expanded; depth and count of elements are bounded.
"""

from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from fleet.errors import SourceError

DEEPEST: Final = 64
MOST_ELEMENTS: Final = 2_000_000


@dataclass(slots=True)
class Element:
    """An XML element: attributes, children in order, own text, and the line it began on."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def get(self, name: str) -> str | None:
        """An attribute's text, None where it is missing or empty."""
        return self.attributes.get(name) or None

    def find(self, *path: str) -> "Element | None":
        """First element down a path of tags."""
        here = self
        for tag in path:
            below = next((child for child in here.children if child.tag == tag), None)
            if below is None:
                return None
            here = below
        return here

    def all(self, tag: str) -> list["Element"]:
        """Children with a tag."""
        return [child for child in self.children if child.tag == tag]


class _Builder:
    def __init__(self, where: str, first_line: int) -> None:
        self.where = where
        self.first_line = first_line
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse_entity
        self.root: Element | None = None
        self.open: list[Element] = []
        self.count = 0

    @property
    def line(self) -> int:
        """Line of the file, blank lines before the document counted."""
        return self.parser.CurrentLineNumber + self.first_line

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if len(self.open) >= DEEPEST or self.count > MOST_ELEMENTS:
            raise self._fault(f"more than {DEEPEST} levels or {MOST_ELEMENTS} elements")
        element = Element(tag, attributes, self.line)
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def _end(self, tag: str) -> None:
        element = self.open.pop()
        element.text = element.text.strip()

    def _text(self, text: str) -> None:
        if self.open:
            self.open[-1].text += text

    def _refuse_entity(self, *declaration: object) -> None:
        raise self._fault("declares an entity, which no tool we read does")

    def _fault(self, problem: str) -> SourceError:
        return SourceError(
            problem,
            where=self.where,
            field=f"line {self.line}",
            remedy="give the file as the tool wrote it",
        )


def parse_xml(content: bytes, *, where: str) -> Element:
    """The root element of an XML document.

    Raises:
        SourceError: not well formed (cut, two roots), too deep, or with entities; with the line.
    """
    body = content.lstrip()
    blank_lines = content[: len(content) - len(body)].count(b"\n")
    builder = _Builder(where, blank_lines)
    try:
        builder.parser.Parse(body, True)
    except (LookupError, ValueError) as error:
        raise SourceError(
            f"declares an encoding we cannot read ({error})",
            where=where,
            field=f"line {1 + blank_lines}",
            remedy="save it as UTF-8",
        ) from None
    except expat.ExpatError as error:
        inside = f" inside <{builder.open[-1].tag}>" if builder.open else ""
        raise SourceError(
            f"broken XML: {expat.errors.messages[error.code]}{inside}",
            where=where,
            field=f"line {error.lineno + blank_lines}",
            remedy="the file is cut or two files are joined; write it again with the tool",
        ) from None
    assert builder.root is not None, "expat refuses a document without a root"
    return builder.root
