"""YAML text -> documents that know where they came from. Pure.

Every complaint about a document names its file, its line, its number in the
file, its kind and name, and the path of the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import msgspec
import yaml

from trio_echo.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Document", "Lenient", "Metadata", "Strict", "parse"]


class Lenient(msgspec.Struct, kw_only=True, rename="camel"):
    """Part of a document of which the fields that are not carried out are noticed.

    Attributes:
        noted: fields that are known and not carried out, noticed like unknown
            ones.
    """

    noted: ClassVar[frozenset[str]] = frozenset()


class Strict(Lenient, forbid_unknown_fields=True):
    """Part of a document of which a field that is not carried out is an error."""


class Metadata(Lenient):
    """What every object has: its name and its labels.

    Attributes:
        name: unique for the kind in its namespace.
        namespace: the namespace, if the document names it itself.
        labels: what selectors look at.
        annotations: notes for people and other tools.
    """

    name: str
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


_Struct = TypeVar("_Struct", bound=Lenient)

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_PLACED = re.compile(r"(.*) - at `(?:key` in `)?\$(.*)`", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """One YAML document that describes one object.

    Attributes:
        origin: the file, as the user named it.
        number: which document of the file it is, counted from 1.
        content: the mapping.
        node: where each part stands in the file.
        default_namespace: the namespace where the document names none.
        forced_namespace: the namespace whatever it names, as kustomize's
            ``namespace`` field does; empty for none.
    """

    origin: str
    number: int
    content: dict[str, Any]
    node: yaml.Node
    default_namespace: str = "default"
    forced_namespace: str = ""

    @property
    def kind(self) -> str:
        """What the object is, such as ``Service``."""
        return str(self.content.get("kind", ""))

    @property
    def api_version(self) -> str:
        """The group and version that it is written in."""
        return str(self.content.get("apiVersion", ""))

    @property
    def name(self) -> str:
        """The object's name; empty where it has none."""
        if self.kind == "Namespace" and self.forced_namespace:
            return self.forced_namespace  # kustomize renames the namespace itself
        metadata = self.content.get("metadata")
        return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""

    @property
    def namespace(self) -> str:
        """The namespace that the object is in."""
        metadata = self.content.get("metadata")
        own = metadata.get("namespace") if isinstance(metadata, dict) else None
        return self.forced_namespace or str(own or self.default_namespace)

    def read(self, shape: type[_Struct]) -> _Struct:
        """The content as `shape`.

        Raises:
            ManifestError: it has other types, or fields that are an error.
        """
        try:
            return msgspec.convert(self.content, shape)
        except msgspec.ValidationError as error:
            message, path = str(error), ""
            if placed := _PLACED.fullmatch(message):
                message, path = placed.groups()
            if unknown := _UNKNOWN.fullmatch(message):
                path = f"{path}.{unknown[1]}"
                message = "the rehearsal does not carry out this field"
            raise self.error(path.lstrip("."), message.replace("`", "")) from None

    def error(self, path: str, reason: str) -> ManifestError:
        """A complaint about the field at `path`, to be raised."""
        field = f"{path}: " if path else ""
        return ManifestError(f"{self.place(path)}: {field}{reason}")

    def place(self, path: str = "") -> str:
        """Where the field at `path` stands, or the part of it that is there."""
        line = _line(self.node, path)
        what = " ".join(part for part in (self.kind, self.name) if part)
        return f"{self.origin}:{line}, document {self.number}" + (f" ({what})" if what else "")

    def unread(self, value: Lenient) -> list[str]:
        """The paths of the fields that were not carried out in reading `value`."""
        return list(_unread(self.content, value, ""))


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, origin: str) -> list[Document]:
    """Read all the documents in `text`; empty ones are left out, a List is opened.

    Raises:
        ManifestError: broken YAML, with line and column; a key that is there
            twice; a document that is no mapping.
    """
    documents: list[Document] = []
    try:
        loader = _Loader(text)
        number = 0
        while loader.check_node():
            node = cast("yaml.Node", loader.get_node())
            number += 1
            _check_keys(node, origin, set())
            content = loader.construct_document(node)
            if content is not None:
                documents += _open(origin, number, content, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ManifestError(f"{origin}{where}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(f"{origin}: {reason}") from None
    except RecursionError:
        raise ManifestError(f"{origin}: nested too deeply") from None
    return documents


def _open(origin: str, number: int, content: Any, node: yaml.Node) -> Iterator[Document]:
    """The document, or the items of a List."""
    if not isinstance(content, dict):
        line = node.start_mark.line + 1
        raise ManifestError(
            f"{origin}:{line}, document {number}: must be a mapping with apiVersion and kind,"
            f" got {type(content).__name__}"
        )
    if str(content.get("kind", "")).endswith("List") and isinstance(content.get("items"), list):
        items = _child(node, "items")
        for index, item in enumerate(content["items"]):
            yield from _open(origin, number, item, _child(items, index))
        return
    yield Document(origin=origin, number=number, content=content, node=node)


def _check_keys(node: yaml.Node, origin: str, parents: set[int]) -> None:
    """Refuse a key that stands twice in a mapping, and a document inside itself.

    PyYAML would let the last one win in silence.
    """
    if not isinstance(node, yaml.CollectionNode):
        return
    where = f"{origin}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if id(node) in parents:
        raise ManifestError(f"{where}: an alias inside the value that it stands for")
    inside = parents | {id(node)}
    seen: set[str] = set()
    for part in node.value:
        if isinstance(node, yaml.MappingNode):
            key, value = part
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in seen and name != "<<":
                mark = key.start_mark
                raise ManifestError(
                    f"{origin}:{mark.line + 1}:{mark.column + 1}: {name} is there twice"
                )
            seen.add(name)
            _check_keys(value, origin, inside)
        else:
            _check_keys(part, origin, inside)


def _line(node: yaml.Node, path: str) -> int:
    """The line of the field at `path`, or of the last part of it that is there."""
    for name, index in _STEP.findall(f".{path}" if path else ""):
        child = _child(node, name or int(index))
        if child is node:
            break
        node = child
    return int(node.start_mark.line) + 1


def _child(node: yaml.Node, step: str | int) -> yaml.Node:
    """The part of a node at a key or an index; the node itself if there is none."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return cast("yaml.Node", value)
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return cast("yaml.Node", node.value[step])
    return node


def _unread(raw: Any, value: Any, path: str) -> Iterator[str]:
    """The paths in `raw` that the structs of `value` have no field for, or note."""
    if isinstance(value, Lenient) and isinstance(raw, dict):
        known = {field.encode_name: field.name for field in msgspec.structs.fields(value)}
        for key, inner in raw.items():
            where = f"{path}.{key}".lstrip(".")
            if key not in known or known[key] in value.noted:
                yield where
            else:
                yield from _unread(inner, getattr(value, known[key]), where)
    elif isinstance(value, (list, tuple)):
        for index, (inner, part) in enumerate(zip(raw, value, strict=True)):
            yield from _unread(inner, part, f"{path}[{index}]")
