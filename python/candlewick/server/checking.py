"""Checks JSON against the schemas that the server publishes, and says what is wrong in words.

It knows the few keywords of JSON Schema that `candlewick.server.schemas` uses. So the OpenAPI document is not a
description of what is checked, it is what is checked.
"""

from __future__ import annotations

import json
import re
from typing import Any

from candlewick.server.errors import ApiError

Schema = dict[str, Any]

_NAMES = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def check(value: Any, schema: Schema, path: str = "") -> None:
    """Passes if ``value`` fits.

    Raises:
        ApiError: It does not; the message names the field, what was found and what was expected.
    """
    if "anyOf" in schema:
        check(value, _branch(value, schema["anyOf"], path), path)
        return
    if not _is_type(value, schema):
        raise _wrong(path, value, _types(schema), "invalid_type")
    if "const" in schema and value != schema["const"]:
        raise _wrong(path, value, json.dumps(schema["const"]), "invalid_value")
    if "enum" in schema and value not in schema["enum"]:
        raise _wrong(path, value, _or([json.dumps(x) for x in schema["enum"] if x is not None]), "invalid_value")
    if isinstance(value, dict):
        _check_object(value, schema, path)
    elif isinstance(value, list):
        _check_size(len(value), schema, "Items", "items", path)
        for i, item in enumerate(value):
            check(item, schema.get("items", {}), f"{path}[{i}]")
    elif isinstance(value, str):
        _check_size(len(value), schema, "Length", "characters", path)
        if "pattern" in schema and not re.search(schema["pattern"], value):
            raise _wrong(path, value, f"a string that matches {schema['pattern']}", "invalid_value")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f" from {low}" if high is None else f" from {low} to {high}"
            raise _wrong(path, value, _types(schema) + limits, "invalid_value")


def _check_object(value: dict[str, Any], schema: Schema, path: str) -> None:
    properties = schema.get("properties", {})
    for name, field in properties.items():
        # An object of another kind lacks this and that; its kind is what is wrong.
        if name in value and "const" in field:
            check(value[name], field, _join(path, name))
    for name in schema.get("required", ()):
        if name not in value:
            place = _join(path, name)
            raise ApiError(400, f"`{place}` is missing", param=place, code="missing_required_parameter")
    _check_size(len(value), schema, "Properties", "fields", path)
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        place = _join(path, name)
        if name in properties:
            check(item, properties[name], place)
        elif others is False:
            raise ApiError(400, f"unknown parameter: `{_cut(place)}`", param=_cut(place), code="unknown_parameter")
        elif others is not True:
            if "propertyNames" in schema:
                check(name, schema["propertyNames"], f"the key {json.dumps(_cut(name))} of {path}")
            check(item, others, place)


def _check_size(n: int, schema: Schema, keyword: str, what: str, path: str) -> None:
    low, high = schema.get(f"min{keyword}", 0), schema.get(f"max{keyword}")
    if n < low or (high is not None and n > high):
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        raise ApiError(400, f"`{path}` has {n} {what}, expected {expected}", param=path, code="invalid_value")


def _branch(value: Any, branches: list[Schema], path: str) -> Schema:
    """The alternative that is meant: the first that ``value`` fits at a glance."""
    for branch in branches:
        if _resembles(value, branch):
            return branch
    if isinstance(value, dict):
        # Objects of several kinds, told apart by one of their fields.
        kinds: dict[str, list[str]] = {}
        for branch in branches:
            for name, field in branch.get("properties", {}).items():
                if _names_a_kind(field):
                    names = [kind for kind in field.get("enum", [field.get("const")]) if kind is not None]
                    kinds.setdefault(name, []).extend(map(json.dumps, names))
        for name, expected in kinds.items():
            place = _join(path, name)
            if name not in value:
                raise ApiError(400, f"`{place}` is missing", param=place, code="missing_required_parameter")
            raise _wrong(place, value[name], _or(expected), "invalid_value")
    alike = [branch for branch in branches if _is_type(value, branch)]
    if len(alike) == 1:
        # What is wrong is further in.
        return alike[0]
    expected = list(dict.fromkeys(_types(branch) for branch in branches if branch.get("type") != "null"))
    raise _wrong(path, value, _or(expected), "invalid_type")


def _resembles(value: Any, schema: Schema) -> bool:
    if not _is_type(value, schema):
        return False
    if isinstance(value, dict):
        required = schema.get("required", ())
        fields = schema.get("properties", {}).items()
        kinds = ((name, field.get("enum", [field.get("const")])) for name, field in fields if _names_a_kind(field))
        return all(value[name] in kind if name in value else name not in required for name, kind in kinds)
    if isinstance(value, list) and value:
        return _resembles(value[0], schema.get("items", {}))
    return "enum" not in schema or value in schema["enum"]


def _names_a_kind(field: Schema) -> bool:
    return "const" in field or "enum" in field


def _is_type(value: Any, schema: Schema) -> bool:
    if "anyOf" in schema:
        return any(_is_type(value, branch) for branch in schema["anyOf"])
    types = schema.get("type")
    if types is None:
        return True
    return any(_is(value, name) for name in ([types] if isinstance(types, str) else types))


def _is(value: Any, name: str) -> bool:
    if name == "null":
        return value is None
    if name == "boolean":
        return isinstance(value, bool)
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"object": dict, "array": list, "string": str}[name])


def _types(schema: Schema) -> str:
    if "anyOf" in schema:
        return _or(list(dict.fromkeys(_types(branch) for branch in schema["anyOf"])))
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else [name for name in types if name != "null"]
    described = [_NAMES[name] for name in names]
    if names == ["array"]:
        items = schema.get("items", {}).get("type")
        if isinstance(items, str):
            described = [f"an array of {items}s"]
    return _or(described)


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _wrong(path: str, value: Any, expected: str, code: str) -> ApiError:
    place = f"`{path}`" if path else "the body"
    return ApiError(400, f"{place} is {_shown(value)}, expected {expected}", param=path or None, code=code)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)} items"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return "a number of very many digits"
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
