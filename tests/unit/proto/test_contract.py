"""Rules of the .proto files that hold everywhere, also where no buf is installed."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[3] / "proto"
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("letterlock*/**/*.proto"))

_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # field numbers in FileDescriptorProto
_FIELD, _NESTED, _NESTED_ENUM, _ONEOF = 2, 3, 4, 8  # in DescriptorProto
_VALUE = _METHOD = 2  # in EnumDescriptorProto and ServiceDescriptorProto


class Thing(NamedTuple):
    """A named thing of a file and whether a comment stands before it."""

    name: str
    kind: str
    commented: bool


@pytest.fixture(scope="module")
def described(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    out = tmp_path_factory.mktemp("descriptors") / "set"
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    options = ["--include_source_info", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *includes, *options, *SOURCES]) == 0
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: file for file in found.file}


def things(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Thing]:
    places = {tuple(place.path): place for place in file.source_code_info.location}

    def thing(name: str, kind: str, *path: int) -> Thing:
        return Thing(name, kind, bool(places[path].leading_comments.strip()))

    def in_enum(enum, *path: int) -> Iterator[Thing]:
        yield thing(enum.name, "enum", *path)
        for at, value in enumerate(enum.value):
            yield thing(f"{enum.name}.{value.name}", "enum value", *path, _VALUE, at)

    def in_message(message, *path: int) -> Iterator[Thing]:
        yield thing(message.name, "message", *path)
        for at, field in enumerate(message.field):
            yield thing(f"{message.name}.{field.name}", "field", *path, _FIELD, at)
        for at, oneof in enumerate(message.oneof_decl):
            if not oneof.name.startswith("_"):
                yield thing(f"{message.name}.{oneof.name}", "oneof", *path, _ONEOF, at)
        for at, enum in enumerate(message.enum_type):
            yield from in_enum(enum, *path, _NESTED_ENUM, at)
        for at, nested in enumerate(message.nested_type):
            yield from in_message(nested, *path, _NESTED, at)

    for at, message in enumerate(file.message_type):
        yield from in_message(message, _MESSAGE, at)
    for at, enum in enumerate(file.enum_type):
        yield from in_enum(enum, _ENUM, at)
    for at, service in enumerate(file.service):
        yield thing(service.name, "service", _SERVICE, at)
        for method_at, method in enumerate(service.method):
            yield thing(f"{service.name}.{method.name}", "rpc", _SERVICE, at, _METHOD, method_at)


def enums(message_or_file) -> Iterator[descriptor_pb2.EnumDescriptorProto]:
    yield from message_or_file.enum_type
    nested = getattr(message_or_file, "message_type", None) or getattr(
        message_or_file, "nested_type", ()
    )
    for message in nested:
        yield from enums(message)


@pytest.mark.parametrize("name", SOURCES)
def test_everything_has_a_comment(name: str, described) -> None:
    bare = [
        f"{thing.kind} {thing.name}" for thing in things(described[name]) if not thing.commented
    ]
    assert bare == []


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_lies_where_its_package_says(name: str, described) -> None:
    package = described[name].package
    assert name.rpartition("/")[0] == package.replace(".", "/")
    assert re.search(r"\.v[0-9]+$", package)


@pytest.mark.parametrize("name", SOURCES)
def test_enums_start_with_their_own_unspecified(name: str, described) -> None:
    for enum in enums(described[name]):
        prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper()
        assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
        assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


@pytest.mark.parametrize("name", SOURCES)
def test_times_are_named_times(name: str, described) -> None:
    def fields(message):
        yield from message.field
        for nested in message.nested_type:
            yield from fields(nested)

    for message in described[name].message_type:
        for field in fields(message):
            if field.type_name == ".google.protobuf.Timestamp":
                assert field.name.endswith("_time"), f"{message.name}.{field.name}"


def test_the_contract_carries_nothing_private(described) -> None:
    for name, file in described.items():
        if name.startswith("letterlock/"):
            private = [path for path in file.dependency if path.startswith("letterlockd/")]
            assert private == []


def test_the_relays_contract_has_no_place_for_content(described) -> None:
    for name, file in described.items():
        if name.startswith("letterlock/relay/"):
            assert not [
                path for path in file.dependency if "content" in path or "messaging" in path
            ]
