"""YAML text -> documents that know where they came from. Pure.

YAML is read as Kubernetes' reader does (YAML 1.1's words for true and false,
but no dates and no base 60), in one pass over the parser's events and within
bounds, so that no file takes long or much memory. Every complaint about a
document names its file, its line, its number in the file, its kind and name,
and the path of the field.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import msgspec
import yaml

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.route import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MOST_BYTES",
    "Document",
    "Lenient",
    "Metadata",
    "Strict",
    "listed",
    "parse",
]

MOST_BYTES = 16 * 2**20
"""The longest text that is read. Three times the largest rendered charts."""

_MOST_VALUES = 2_000_000
"""Values in one text, each alias counted as all that it stands for."""

_DEEPEST = 100
"""Values inside each other; the deepest of Kubernetes' own schemas has some 40."""

_LONGEST = 400
"""Characters of one complaint, which may quote a value of any size."""

_LOADER = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))
"""The parser in C, twenty times as fast, where PyYAML was built with it."""


class Lenient(msgspec.Struct, kw_only=True, rename="camel"):
    """Part of a document of which the fields that are not carried out are noticed.

    Attributes:
        noted: fields that are known and not carried out, noticed like unknown
            ones.
        ignored: fields that decide nothing here, and are not noticed.
    """

    noted: ClassVar[frozenset[str]] = frozenset()
    ignored: ClassVar[frozenset[str]] = frozenset()


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

    ignored: ClassVar[frozenset[str]] = frozenset(
        {
            "creationTimestamp",
            "uid",
            "resourceVersion",
            "generation",
            "managedFields",
            "finalizers",
            "ownerReferences",
            "generateName",
        }
    )
    name: str
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


_Struct = TypeVar("_Struct", bound=Lenient)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a document stands in its text.

    Attributes:
        text: all of it.
        start: the index of its first character.
        end: the index after its last.
        line: the line of its first character, counted from 1.
        column: what stands before that in its line, in characters.
    """

    text: str
    start: int
    end: int
    line: int
    column: int = 0

    def line_of(self, path: str) -> int:
        """The line of the field at `path`, or of the last part of it that is there.

        Lines are looked up again when they are asked for: most never are.
        """
        # Its first line must be as far in as the others: an item of a List is a part.
        own = " " * self.column + self.text[self.start : self.end]
        events: Iterator[Any] = yaml.parse(own, Loader=_LOADER)
        event: Any = next(each for each in events if isinstance(each, yaml.NodeEvent))
        for name, index in _STEP.findall(f".{path}"):
            found = _child(events, event, name or int(index))
            if found is None:
                break
            event = found
        return self.line + int(event.start_mark.line)


_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


def _child(events: Iterator[Any], parent: Any, step: str | int) -> Any:
    """The event of the part of a value at a key or an index, if there is one.

    Args:
        events: what comes after `parent`.
        parent: the event that begins the value.
        step: the key, or the index.
    """
    if isinstance(parent, yaml.MappingStartEvent):
        while not isinstance(key := next(events), yaml.MappingEndEvent):
            value = next(events)
            if key.value == step:
                return value
            _pass(events, value)
    elif isinstance(parent, yaml.SequenceStartEvent):
        number = 0
        while not isinstance(value := next(events), yaml.SequenceEndEvent):
            if number == step:
                return value
            _pass(events, value)
            number += 1
    return None


def _pass(events: Iterator[Any], begun: Any) -> None:
    """Pass over a value that has begun."""
    depth = int(isinstance(begun, yaml.CollectionStartEvent))
    while depth:
        event = next(events)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """One YAML document that describes one object.

    Attributes:
        origin: the file, as the user named it.
        number: which document of the file it is, counted from 1.
        content: the mapping.
        source: where it stands in the file.
        default_namespace: the namespace where the document names none.
        forced_namespace: the namespace whatever it names, as kustomize's
            ``namespace`` field does; empty for none.
    """

    origin: str
    number: int
    content: dict[str, Any]
    source: _Source
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
        return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""

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
        return self.read_part(shape, self.content, "")

    def read_part(self, shape: type[_Struct], value: Any, path: str) -> _Struct:
        """The value at `path` as `shape`; the same otherwise."""
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            where, reason = _in_words(str(error), value, shape)
            raise self.error(f"{path}.{where}".strip("."), reason) from None

    def error(self, path: str, reason: str) -> ManifestError:
        """A complaint about the field at `path`, to be raised."""
        field = f"{path}: " if path else ""
        line = self.source.line_of(path)
        message = f"{self._place(line)}: {field}{reason}{_template_in(reason)}"
        return _complaint(message, self.origin, line)

    def place(self, path: str = "") -> str:
        """Where the field at `path` stands, or the part of it that is there."""
        return self._place(self.source.line_of(path))

    def notice(self, text: str, path: str = "") -> Notice:
        """A note or warning about the field at `path`."""
        return Notice(text, self.origin, self.source.line_of(path))

    def _place(self, line: int) -> str:
        what = " ".join(part for part in (self.kind, self.name) if part)
        return f"{self.origin}:{line}, document {self.number}" + (f" ({what})" if what else "")

    def unread(self, value: Lenient) -> list[str]:
        """The paths of the fields that were not carried out in reading `value`."""
        return list(_unread(self.content, value, ""))


def listed(names: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """Names in a row, the first few of many, or the word for none."""
    names = list(names)
    more = f", and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return (", ".join(names[:_MANY]) or "none") + more


_MANY = 12


def parse(text: str, origin: str) -> list[Document]:
    """Read all the documents in `text`; empty ones are left out, a List is opened.

    Raises:
        ManifestError: broken YAML, with line and column; a key that is there
            twice; a document that is no mapping; more than the bounds allow.
    """
    if len(text) > MOST_BYTES:
        raise _complaint(f"{origin}: is longer than {MOST_BYTES // 2**20} MiB", origin, None)
    try:
        reader = _Reader(text.removeprefix("\ufeff"), origin)
        return [document for part in _parts(reader.text) for document in reader.documents(part)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        where = f":{line}:{mark.column + 1}" if mark else ""
        reason = f"{error.problem or error.context}{_template_in(text)}"
        raise _complaint(f"{origin}{where}: {reason}", origin, line) from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise _complaint(f"{origin}: {reason}", origin, None) from None


def _parts(text: str) -> Iterator[str]:
    """The objects of JSON that stand one after the other, each at its line; else all of it."""
    start, decoder = 0, json.JSONDecoder()
    ends: list[int] = []
    if text.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            while rest := text[start:].lstrip():
                start = len(text) - len(rest)
                start = decoder.raw_decode(text, start)[1]
                ends.append(start)
    if len(ends) < _SEVERAL:
        yield text
        return
    start = 0
    for end in ends:
        yield "\n" * text.count("\n", 0, start) + text[start:end]
        start = end


_SEVERAL = 2


def _template_in(text: str) -> str:
    """What to say beside a complaint about a text that was to be rendered first."""
    if "{{" not in text:
        return ""
    return "; {{ }} is a template: render it first, as helm template CHART | trio-echo rehearse -"


def _complaint(message: str, origin: str, line: int | None) -> ManifestError:
    """The error for a message, which is cut where it quotes too much."""
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST - 1]}…"
    return ManifestError(message, origin=origin, line=line)


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read.

    Attributes:
        value: what is in it so far.
        mark: where it began.
        anchor: the name by which an alias may mean it.
        key: the key whose value comes next; None where a key comes next.
        merged: mappings that ``<<`` adds, the nearest last.
        before: how many values were read before it.
    """

    value: dict[str, Any] | list[Any]
    mark: Any
    anchor: str | None
    before: int
    key: str | None = None
    merged: list[dict[str, Any]] = field(default_factory=list)


class _Reader:
    """Builds the documents of a text from the parser's events, within bounds."""

    def __init__(self, text: str, origin: str) -> None:
        self.text = text
        self._origin = origin
        self._number = 0
        self._count = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._root: Any = None
        self._items: dict[int, _Source] = {}
        """Where each item of a List stands, by the identity of its value."""

    def documents(self, text: str) -> Iterator[Document]:
        """Every document in its order; empty ones are left out, a List is opened."""
        start: Any = None
        self.text = text
        events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                start, self._root = event, None
                self._number += 1
                self._anchors.clear()
                self._items.clear()
            elif isinstance(event, yaml.DocumentEndEvent):
                first: Any = start.start_mark
                last: Any = event.end_mark
                source = _Source(self.text, first.index, last.index, first.line + 1)
                if self._root is not None:
                    yield from self._opened(self._root, source)
            else:
                self._take(event)

    def _opened(self, content: Any, source: _Source, path: str = "") -> Iterator[Document]:
        """The document, or the items of a List.

        Args:
            content: what it says.
            source: where it stands, or where what it is a part of stands.
            path: to it in that.
        """
        if not isinstance(content, dict):
            line = source.line_of(path)
            raise _complaint(
                f"{self._origin}:{line}, document {self._number}: must be a mapping with"
                f" apiVersion and kind, got {_kind_of(content)}",
                self._origin,
                line,
            )
        items = content.get("items")
        if not (str(content.get("kind", "")).endswith("List") and isinstance(items, list)):
            yield Document(origin=self._origin, number=self._number, content=content, source=source)
            return
        for index, item in enumerate(items):
            own = self._items.get(id(item))
            yield from self._opened(item, own or source, "" if own else f"items[{index}]")

    def _take(self, event: yaml.Event) -> None:
        """Take in a part of a document."""
        if isinstance(event, yaml.ScalarEvent):
            if self._wants_key():
                self._take_key(event)
            else:
                self._put(_scalar(event), event, event.anchor)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._begin(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._end(event)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event)

    def _wants_key(self) -> bool:
        """Whether a key comes next."""
        return bool(self._open) and self._open[-1].key is None and self._in_mapping()

    def _in_mapping(self) -> bool:
        return isinstance(self._open[-1].value, dict)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        """A list or mapping begins."""
        if self._wants_key():
            raise _marked("a key must be text, not a list or mapping", event)
        if len(self._open) >= _DEEPEST:
            raise _marked(f"nested more than {_DEEPEST} deep", event)
        if event.anchor:
            self._anchors[event.anchor] = None
        value: dict[str, Any] | list[Any]
        value = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(_Open(value, event.start_mark, event.anchor, self._count))

    def _end(self, event: yaml.Event) -> None:
        """A list or mapping ends."""
        ended = self._open.pop()
        if isinstance(ended.value, dict):
            for merged in ended.merged:
                ended.value = merged | ended.value
        if ended.anchor:
            self._anchors[ended.anchor] = ended.value, self._count - ended.before
        if len(self._open) > 1 and self._open[-2].key == "items":
            first: Any = ended.mark
            last: Any = event.end_mark
            self._items[id(ended.value)] = _Source(
                self.text, first.index, last.index, first.line + 1, first.column
            )
        self._put(ended.value, event, None)

    def _take_key(self, event: yaml.ScalarEvent) -> None:
        """A key, which must be new."""
        name = str(event.value)
        mapping = self._open[-1]
        if name in mapping.value:
            raise _marked(f"{name} is there twice", event)
        if event.anchor:
            self._anchors[event.anchor] = name, 1
        mapping.key = name

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        """What an alias stands for, shared and not copied, but counted."""
        if event.anchor not in self._anchors:
            raise _marked(f"found undefined alias {event.anchor!r}", event)
        found = self._anchors[event.anchor]
        if found is None:
            opened = next(each for each in self._open if each.anchor == event.anchor)
            raise yaml.MarkedYAMLError(
                problem="an alias inside the value that it stands for", problem_mark=opened.mark
            )
        if self._wants_key():
            raise _marked("an alias cannot be a key", event)
        value, size = found
        self._count += size
        self._put(value, event, None)

    def _put(self, value: Any, event: yaml.Event, anchor: str | None) -> None:
        """Put a value where it belongs."""
        self._count += 1
        if self._count > _MOST_VALUES:
            raise _marked(f"more than {_MOST_VALUES:,} values, aliases counted in full", event)
        if anchor:
            self._anchors[anchor] = value, 1
        if not self._open:
            self._root = value
            return
        into = self._open[-1]
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key == "<<":
            into.merged += _mappings(value, event)
            into.key = None
        else:
            into.value[cast("str", into.key)] = value
            into.key = None


def _mappings(value: Any, event: yaml.Event) -> list[dict[str, Any]]:
    """What ``<<`` adds: one mapping, or several of which the first wins."""
    several = value if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in several):
        raise _marked("<< must stand before a mapping, or a list of mappings", event)
    return several


def _marked(problem: str, event: Any) -> yaml.MarkedYAMLError:
    """The parser's error, for a problem of ours."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, Any] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
for _truth, _names in ((True, "true yes on"), (False, "false no off")):
    for _name in _names.split():
        _WORDS |= dict.fromkeys((_name, _name.capitalize(), _name.upper()), _truth)
_WORDS |= dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan"))
_WORDS |= dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf"))
_WORDS |= dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf"))
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_EXACT = 2**53
_LONGEST_INTEGER = 24
"""Characters; a longer number is read as a float, as it fits no integer there."""


def _scalar(event: yaml.ScalarEvent) -> Any:
    """The value of a scalar."""
    text, tag = str(event.value), event.tag
    if tag is None:
        return _plain(text) if event.implicit[0] else text
    wanted = _TYPES.get(tag.removeprefix(_TAG)) if tag.startswith(_TAG) else None
    if wanted is None:
        return text
    value = _plain(text)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise _marked(f"!!{tag.removeprefix(_TAG)} cannot be {text!r}", event)
    return value


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}


def _plain(text: str) -> Any:
    """The value of a scalar without quotes, as Kubernetes' reader takes it."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "0123456789+-.":
        if _INTEGER.fullmatch(text) and len(text) <= _LONGEST_INTEGER:
            digits = text.replace("_", "")
            octal = re.fullmatch(r"([-+]?)0([0-7]+)", digits)
            return int(f"{octal[1]}0o{octal[2]}" if octal else digits, 0)
        if _FLOAT.fullmatch(text):
            number = float(text)
            # JSON, which it becomes on its way, has no other number for 80.0 than 80.
            return int(number) if number.is_integer() and abs(number) < _EXACT else number
    return text


def _unread(raw: Any, value: Any, path: str) -> Iterator[str]:
    """The paths in `raw` that the structs of `value` have no field for, or note."""
    if isinstance(value, Lenient) and isinstance(raw, dict):
        known = _fields(type(value))
        for key, inner in raw.items():
            where = f"{path}.{key}".lstrip(".")
            if key in value.ignored or where == "status":
                continue
            if key not in known or known[key] in value.noted:
                yield where
            else:
                yield from _unread(inner, getattr(value, known[key]), where)
    elif isinstance(value, (list, tuple)):
        for index, (inner, part) in enumerate(zip(raw, value, strict=True)):
            yield from _unread(inner, part, f"{path}[{index}]")


@cache
def _fields(shape: type[Lenient]) -> dict[str, str]:
    """The attributes of a shape by the names of their fields; slow to look up."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(shape)}


_PLACED = re.compile(r"(.*) - at `(?:key(?: in)? )?`?\$(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_LENGTH = re.compile(r"Expected `array` of length (>=|<=) (\d+)")
_RANGE = re.compile(r"Expected `\w+` (>=|<=) (-?\d+)")
_NAMES_OF_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _in_words(message: str, content: dict[str, Any], shape: type[Lenient]) -> tuple[str, str]:
    """A complaint of the converter's as the path of a field, and the words for it."""
    path = ""
    if placed := _PLACED.fullmatch(message):
        message, path = placed.groups()
    if unknown := _UNKNOWN.fullmatch(message):
        near = get_close_matches(unknown[1], _fields_at(shape, path), n=1)
        reason = "the rehearsal does not support this field"
        if near:
            reason = f"there is no such field; is it {near[0]}?"
        return f"{path}.{unknown[1]}".lstrip("."), reason
    if missing := _MISSING.fullmatch(message):
        return f"{path}.{missing[1]}".lstrip("."), "is missing"
    value, path = _value_at(content, path.lstrip("."))
    return path, _fitting(message, _shown(value))


def _fitting(message: str, found: str) -> str:
    """What would fit in the place of a value, as a complaint of the converter's has it."""
    if wrong := _WRONG_TYPE.fullmatch(message):
        names = [_NAMES_OF_TYPES.get(each, each) for each in wrong[1].split(" | ")]
        wanted = " or ".join(each for each in names if each != "null")
        return f"must be {wanted}, got {found}"
    if length := _LENGTH.fullmatch(message):
        bound = "at least" if length[1] == ">=" else "at most"
        number = "one entry" if length[2] == "1" else f"{length[2]} entries"
        return f"must have {bound} {number}"
    if limit := _RANGE.fullmatch(message):
        return f"must be at {'least' if limit[1] == '>=' else 'most'} {limit[2]}, got {found}"
    return f"cannot be {found}"


def _fields_at(shape: type[Lenient], path: str) -> list[str]:
    """The names of the fields that the part of `shape` at a path has."""
    part = _inner(msgspec.inspect.type_info(shape))
    for name, _ in _STEP.findall(path):
        if name:
            part = _inner(next(each.type for each in part.fields if each.encode_name == name))
    return [each.encode_name for each in part.fields]


def _inner(part: Any) -> Any:
    """The struct in a type: of an optional one, or of a list's items."""
    while not isinstance(part, msgspec.inspect.StructType):
        part = part.item_type if hasattr(part, "item_type") else part.types[0]
    return part


def _value_at(content: Any, path: str) -> tuple[Any, str]:
    """The value at a path, and the path; of a mapping with names of one's own, the first misfit."""
    for name, index in _STEP.findall(f".{path}"):
        content = content[name or int(index)]
    if path.endswith("[...]"):
        key = next(each for each, value in content.items() if not isinstance(value, str))
        return content[key], f"{path.removesuffix('[...]')}.{key}"
    return content, path


def _shown(value: Any) -> str:
    """A value in a complaint."""
    return repr(value) if isinstance(value, (str, int, float)) else _kind_of(value)


def _kind_of(value: Any) -> str:
    """What kind of value it is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)
