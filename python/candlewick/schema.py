"""Python types and JSON Schema: what a type looks like as a schema, and a JSON value as an object of the type."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import functools
import json
import re
import types
import typing
import uuid
from typing import TYPE_CHECKING, Any

from candlewick.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SCALARS: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.time: {"type": "string", "format": "time"},
    uuid.UUID: {"type": "string", "format": "uuid"},
}
_LISTS = (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
# As `annotated_types`, and so pydantic's `Field`, names them.
_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """The schema that a text must fit, as JSON, and what reads such a text."""

    schema: str
    read: Callable[[str], Any]


def shape(json_schema: Any) -> Shape:
    """What the argument ``json_schema`` means."""
    if isinstance(json_schema, str):
        return Shape(json_schema, json.loads)
    if isinstance(json_schema, (dict, types.MappingProxyType, collections.abc.Mapping)):
        return Shape(dumps(json_schema, "json_schema"), json.loads)
    if is_pydantic(json_schema):
        return Shape(dumps(closed(json_schema.model_json_schema()), "json_schema"), json_schema.model_validate_json)
    if hasattr(json_schema, "json_schema") and hasattr(json_schema, "validate_json"):  # pydantic.TypeAdapter
        return Shape(dumps(closed(json_schema.json_schema()), "json_schema"), json_schema.validate_json)
    if isinstance(json_schema, (type, typing.NewType)) or typing.get_origin(json_schema) is not None:
        return Shape(dumps(schema_of(json_schema), "json_schema"), functools.partial(_read, json_schema))
    raise TypeError(
        "json_schema must be a dict, a str of JSON, or a type (a pydantic model, a dataclass, a TypedDict, list[int]), "
        f"not {type(json_schema).__name__}"
    )


def _read(annotation: Any, text: str) -> Any:
    return build(annotation, json.loads(text))


def dumps(value: object, name: str) -> str:
    """Compact JSON, or an `InvalidRequestError` that names what is wrong."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name} cannot be written as JSON: {error}") from None


def _plain(value: object) -> object:
    """Mappings other than dict, for `json.dumps`."""
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def is_pydantic(annotation: object) -> bool:
    """Whether it is a pydantic model (of version 2), without importing pydantic."""
    return isinstance(annotation, type) and hasattr(annotation, "model_json_schema")


def _is_typeddict(annotation: object) -> bool:
    """Of `typing` or of `typing_extensions`, which have classes of their own."""
    return isinstance(annotation, type) and hasattr(annotation, "__required_keys__")


def closed(schema: Any) -> Any:
    """The schema of a model with its objects closed: a model has fields, and what else comes it ignores."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        schema = [closed(item) for item in schema]
    return schema


def schema_of(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of a type.

    Known are ``bool``, ``int``, ``float``, ``str``, ``None``, ``Literal``, ``Enum``, ``Optional`` and other unions,
    ``list``, ``set``, ``tuple`` and ``dict`` with types in them, dataclasses, ``TypedDict``, pydantic models, dates and
    times, ``UUID``, ``Any`` and ``Annotated`` (a string is the description; limits as in ``annotated_types``).

    Raises:
        InvalidRequestError: It has a part that JSON cannot express.
    """
    describer = Describer()
    return describer.whole(describer.describe(annotation, _name(annotation)))


class Describer:
    """Makes schemas of types, and collects the definitions that they share."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._named: dict[Any, str] = {}

    def whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with the definitions that it refers to."""
        return {**schema, "$defs": self.definitions} if self.definitions else schema

    def describe(self, annotation: Any, place: str) -> dict[str, Any]:
        """The schema of one annotation; ``place`` names it in messages."""
        if annotation is Any:
            return {}
        if annotation is None:
            annotation = type(None)
        if isinstance(annotation, collections.abc.Hashable) and annotation in _SCALARS:
            return dict(_SCALARS[annotation])
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._annotated(arguments[0], arguments[1:], place)
        if origin is typing.Literal:
            return {"enum": [_literal(value, place) for value in arguments]}
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.describe(member, place) for member in arguments]}
        if (inner := _unwrapped(annotation)) is not None:
            return self.describe(inner, place)
        if annotation is tuple or origin is tuple:
            return self._tuple(arguments, place)
        if annotation in _LISTS or origin in _LISTS:
            return {"type": "array", **({"items": self.describe(arguments[0], place)} if arguments else {})}
        if annotation in _DICTS or origin in _DICTS:
            return self._dict(arguments, place)
        if isinstance(annotation, type):
            if issubclass(annotation, enum.Enum):
                return {"enum": [_literal(member.value, place) for member in annotation]}
            if is_pydantic(annotation):
                return self._pydantic(annotation)
            if dataclasses.is_dataclass(annotation) or _is_typeddict(annotation):
                return self._reference(annotation)
        raise InvalidRequestError(
            f"{place} is {_name(annotation)}, which cannot be described as JSON Schema: expected bool, int, float, "
            "str, None, Literal, Enum, Optional, list, dict, a dataclass, a TypedDict or a pydantic model"
        )

    def object(
        self,
        fields: Mapping[str, Any],
        required: list[str],
        place: str,
        extra: Mapping[str, dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """An object with these fields and no others; ``extra`` are further keywords of theirs."""
        properties = {
            name: {**self.describe(annotation, f"{name} of {place}"), **(extra or {}).get(name, {})}
            for name, annotation in fields.items()
        }
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def _annotated(self, annotation: Any, metadata: tuple[Any, ...], place: str) -> dict[str, Any]:
        schema = self.describe(annotation, place)
        for item in metadata:
            if isinstance(item, str):
                schema["description"] = item
                continue
            for limit, keyword in _LIMITS.items():
                value = getattr(item, limit, None)
                if value is None:
                    continue
                if schema.get("type") == "array":
                    keyword = keyword.replace("Length", "Items")
                schema[keyword] = value.pattern if isinstance(value, re.Pattern) else value
            if description := getattr(item, "description", None):
                schema["description"] = description
            for inner in getattr(item, "metadata", ()):  # pydantic's Field
                schema = {**schema, **self._annotated(annotation, (inner,), place)}
        return schema

    def _tuple(self, arguments: tuple[Any, ...], place: str) -> dict[str, Any]:
        if not arguments:
            return {"type": "array"}
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": self.describe(arguments[0], place)}
        items = [self.describe(argument, place) for argument in arguments if argument != ()]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    def _dict(self, arguments: tuple[Any, ...], place: str) -> dict[str, Any]:
        if not arguments:
            return {"type": "object"}
        if arguments[0] not in (str, Any):
            raise InvalidRequestError(f"{place} has keys of type {_name(arguments[0])}, and keys in JSON are str")
        return {"type": "object", "additionalProperties": self.describe(arguments[1], place)}

    def _pydantic(self, model: Any) -> dict[str, Any]:
        schema = closed(model.model_json_schema(ref_template=f"#/$defs/{model.__name__}.{{model}}"))
        for name, definition in schema.pop("$defs", {}).items():
            self.definitions[f"{model.__name__}.{name}"] = definition
        return dict(schema)

    def _reference(self, annotation: Any) -> dict[str, Any]:
        name = self._named.get(annotation)
        if name is None:
            name = annotation.__name__
            while name in self.definitions:
                name += "_"
            self._named[annotation] = name
            self.definitions[name] = {}
            hints, required = _fields(annotation)
            self.definitions[name] = self.object(hints, required, annotation.__name__)
        return {"$ref": f"#/$defs/{name}"}


def _unwrapped(annotation: Any) -> Any:
    """What stands behind a ``NewType``, a ``type`` alias or ``Required[...]``; ``None`` for the rest."""
    if getattr(typing.get_origin(annotation), "_name", None) in ("Required", "NotRequired", "ReadOnly"):
        return typing.get_args(annotation)[0]
    return getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)


def _fields(annotation: Any) -> tuple[dict[str, Any], list[str]]:
    """The fields of a dataclass or ``TypedDict`` with their types, and those that must be there."""
    try:
        hints = typing.get_type_hints(annotation, include_extras=True)
    except NameError as error:
        raise InvalidRequestError(f"{_name(annotation)} has an annotation that cannot be resolved: {error}") from None
    if _is_typeddict(annotation):
        return hints, [name for name in hints if name in annotation.__required_keys__]
    fields = [field for field in dataclasses.fields(annotation) if field.init]
    missing = dataclasses.MISSING
    required = [f.name for f in fields if f.default is missing and f.default_factory is missing]
    return {field.name: hints[field.name] for field in fields}, required


def _literal(value: object, place: str) -> object:
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InvalidRequestError(f"{place} has the constant {value!r}, and JSON knows numbers, str, bool and None")


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def build(annotation: Any, value: Any) -> Any:
    """The object of a type that a JSON value stands for; the type is one that `schema_of` describes.

    Raises:
        ValueError: It stands for none.
    """
    if annotation is Any:
        return value
    if annotation is None:
        annotation = type(None)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return build(arguments[0], value)
    if origin is typing.Literal:
        for literal in arguments:
            plain = literal.value if isinstance(literal, enum.Enum) else literal
            if type(plain) is type(value) and plain == value:
                return literal
        raise _no(annotation, value)
    if origin in (typing.Union, types.UnionType):
        for member in arguments:
            try:
                return build(member, value)
            except ValueError:
                continue
        raise _no(annotation, value)
    if (inner := _unwrapped(annotation)) is not None:
        return build(inner, value)
    if annotation is tuple or origin is tuple or annotation in _LISTS or origin in _LISTS:
        return _build_list(annotation, origin or annotation, arguments, value)
    if annotation in _DICTS or origin in _DICTS:
        if not isinstance(value, dict):
            raise _no(annotation, value)
        return {key: build(arguments[1], item) for key, item in value.items()} if arguments else value
    return _build_class(annotation, value)


def _build_list(annotation: Any, kind: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(value, list):
        raise _no(annotation, value)
    if kind is tuple and arguments and arguments[1:] != (Ellipsis,):
        if len(arguments) != len(value):
            raise _no(annotation, value)
        return tuple(build(argument, item) for argument, item in zip(arguments, value, strict=True))
    items = [build(arguments[0], item) for item in value] if arguments else value
    return kind(items) if kind in (tuple, set, frozenset) else items


def _build_class(annotation: Any, value: Any) -> Any:
    if issubclass(annotation, enum.Enum):
        return annotation(value)
    if is_pydantic(annotation):
        return annotation.model_validate(value)
    if annotation in (datetime.date, datetime.time, datetime.datetime, uuid.UUID):
        if not isinstance(value, str):
            raise _no(annotation, value)
        return uuid.UUID(value) if annotation is uuid.UUID else annotation.fromisoformat(_iso(value))
    if _is_typeddict(annotation) or dataclasses.is_dataclass(annotation):
        if not isinstance(value, dict):
            raise _no(annotation, value)
        hints, required = _fields(annotation)
        if not value.keys() >= set(required) or not value.keys() <= hints.keys():
            raise _no(annotation, value)
        built = {name: build(hints[name], item) for name, item in value.items()}
        return built if _is_typeddict(annotation) else annotation(**built)
    if annotation is float and type(value) is int:
        return float(value)
    if annotation is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not annotation:
        raise _no(annotation, value)
    return value


def _iso(text: str) -> str:
    """As Python 3.10 reads it: an offset for Z, and a fraction of six digits."""
    text = re.sub(r"\.(\d+)", lambda found: "." + found[1].ljust(6, "0"), text)
    return text.replace("Z", "+00:00")


def _no(annotation: Any, value: object) -> ValueError:
    return ValueError(f"{value!r} is no {_name(annotation)}")
