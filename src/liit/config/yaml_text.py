"""YAML in and out: only plain values, no key twice, and the line on which every key stands.

PyYAML follows YAML 1.1, in which `no` is false, `2e-4` is a string, `010` is eight and `12:30` is 750. A skill may well
be called "no" and a learning rate is written 2e-4, so scalars here follow YAML 1.2's core schema, in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import yaml

from liit.errors import InputError

Key = tuple[str | int, ...]
MAX_NODES = 1_000_000

_SCALARS = (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
)
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2 scalars, sequences and mappings; any other tag is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own name and shape)
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _TAGS
    }


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the strings that the loader would read as something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own name and shape)

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values in full; anchors in a generated file help nobody."""
        return True


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _str(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML leaves these line breaks unescaped in single quotes and then folds them into spaces when it reads.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _str)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def read_yaml(text: str, name: str) -> tuple[Any, dict[Key, str]]:
    """Read a YAML document and remember where its keys stand.

    Args:
        text: The document.
        name: What to call it in messages, usually the path as the user wrote it.

    Returns:
        The value (dicts, lists, strings, numbers, booleans, None), and for every key path, for example
        ("steps", 0, "name"), a place such as "continuum.yaml, line 12".

    Raises:
        InputError: The text is not YAML, has a key twice, a key that is not a string, or a tag that is not plain data.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {(): f"{name}, line 1"}
        places: dict[Key, str] = {(): f"{name}, line {node.start_mark.line + 1}"}
        _walk(loader, node, (), (), name, places)
        return loader.construct_document(node), places
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{name}, line {line}: this is not plain YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{name}: this is not YAML: {' '.join(str(error).split())}") from error


def write_yaml(value: Mapping[str, Any]) -> str:
    """Write plain values as YAML that `read_yaml` reads back unchanged, keys in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _walk(
    loader: _Loader, node: yaml.Node, key: Key, above: tuple[int, ...], name: str, places: dict[Key, str]
) -> None:
    """Note the place of every key below `node`, refusing repeated keys and endless aliases."""
    if id(node) in above or len(places) > MAX_NODES:
        raise InputError(f"{name}, line {node.start_mark.line + 1}: an alias here repeats without end")
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            places[*key, index] = f"{name}, line {item.start_mark.line + 1}"
            _walk(loader, item, (*key, index), above, name, places)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{name}, line {line}: a key must be a word, got a list or a mapping")
            if key_node.value in seen:
                raise InputError(
                    f"{name}, line {line}: key '{key_node.value}' is given twice (first on line {seen[key_node.value]})"
                )
            seen[key_node.value] = line
        loader.flatten_mapping(node)  # puts what `<<` brings in before the mapping's own keys, which then win
        for key_node, value_node in node.value:
            key_node.tag = "tag:yaml.org,2002:str"  # a key is a word, also when it looks like a number
            places[*key, key_node.value] = f"{name}, line {key_node.start_mark.line + 1}"
            _walk(loader, value_node, (*key, key_node.value), above, name, places)
