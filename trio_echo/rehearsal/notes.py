"""What there is to say about manifests beside errors: notes, and warnings. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_echo.rehearsal.route import Notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_echo.rehearsal.documents import Document

__all__ = ["Notes"]


class Notes:
    """Collects what is not carried out, and says it once for all that are alike.

    Attributes:
        warnings: what the data plane does in silence, in the order that it came.
    """

    def __init__(self) -> None:
        self.warnings: list[Notice] = []
        self._fields: dict[Document, list[str]] = {}
        self._unknown: list[Document] = []
        self._said: list[Notice] = []

    def say(self, text: str, document: Document | None = None, path: str = "") -> None:
        """Anything else, as it is, perhaps about a document or a field of it."""
        self._said.append(document.notice(text, path) if document else Notice(text))

    def warn(self, text: str, document: Document, path: str = "") -> str:
        """What the data plane does in silence, and nobody means. Returns it with its place."""
        self.warnings.append(document.notice(text, path))
        return self.warnings[-1].placed

    def unknown(self, document: Document) -> None:
        """A document of a kind that is not rehearsed."""
        self._unknown.append(document)

    def note(self, document: Document, what: str) -> None:
        """A part of a document."""
        self._fields.setdefault(document, []).append(what)

    def all(self) -> tuple[Notice, ...]:
        """The notices, those that are alike with the place of the first."""
        alike: dict[tuple[str, tuple[str, ...]], list[Document]] = {}
        for document, fields in self._fields.items():
            alike.setdefault((document.kind, tuple(fields)), []).append(document)
        found = [
            documents[0].notice(f"{kind} {_named(documents)}: ignored: {_gathered(fields)}")
            for (kind, fields), documents in alike.items()
        ]
        if self._unknown:
            names = ", ".join(f"{each.kind} {each.name}".strip() for each in self._unknown)
            found.insert(0, self._unknown[0].notice(f"ignored: {names}"))
        return (*dict.fromkeys(self._said), *found)


def _named(documents: Sequence[Document]) -> str:
    """The names of documents, each once."""
    return ", ".join(dict.fromkeys(each.name for each in documents))


def _gathered(fields: Sequence[str]) -> str:
    """Paths with those of one parent together: ``spec.{a, b}, spec.c.d``."""
    together: dict[str, list[str]] = {}
    for each in fields:
        parent, dot, name = each.rpartition(".")
        whole = " " in each or not dot
        together.setdefault("" if whole else f"{parent}.", []).append(each if whole else name)
    return ", ".join(
        parent + (f"{{{', '.join(names)}}}" if parent and len(names) > 1 else ", ".join(names))
        for parent, names in together.items()
    )
