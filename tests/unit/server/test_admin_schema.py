"""The OpenAPI document names every field of what routes take and answer: no route has an object of any shape."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from whimbrel.server.admin.app import admin_app
from whimbrel.server.app import create_repository, open_repository
from whimbrel.server.config import Config

WITHOUT_A_VIEW = {
    ("get", "roles/{role}"): "the bytes of TUF metadata, as they were signed",
    ("get", "models/{model}/versions/{version}/provenance/{sha256}"): "the bytes of a file",
    ("head", "artifacts/{sha256}"): "HEAD has no body",
    ("get", "rollouts/{identifier}/evidence/{form}"): "a picture",
}
OF_ANY_SHAPE = {
    ("AuditEntry", "evidence"): "each action tells its own",
    ("ChainedEntry", "evidence"): "the same, as it is in the chain",
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = create_repository(Path(tmp_path_factory.mktemp("described") / "repo"), Config())
    with open_repository(folder) as opened:
        return asyncio.run(fetched(httpx.ASGITransport(admin_app(opened.admin_context()))))


async def fetched(transport: httpx.ASGITransport) -> dict[str, Any]:
    async with httpx.AsyncClient(transport=transport, base_url="http://folder", follow_redirects=True) as http:
        document: dict[str, Any] = (await http.get("/schema")).raise_for_status().json()
        # Tools ask for this path; litestar's own answer there knew no fields.
        assert (await http.get("/schema/openapi.json")).raise_for_status().json() == document
        return document


def answers(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Each route's method and path, with the schema of what it answers when all is well."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status.startswith("2") and status != "204":
                    schema = next(iter(response["content"].values()))["schema"]
                    yield (method, path.removeprefix("/{namespace}/admin/v1/")), schema


def bodies(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Each route's method and path, with the schema of the body that it takes."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation:
                schema = next(iter(operation["requestBody"]["content"].values()))["schema"]
                yield (method, path.removeprefix("/{namespace}/admin/v1/")), schema


def is_named(schema: dict[str, Any]) -> bool:
    return "$ref" in schema or (schema.get("type") == "array" and "$ref" in schema["items"])


def test_every_answer_is_a_view_or_an_array_of_views(document: dict[str, Any]) -> None:
    unnamed = {route for route, schema in answers(document) if not is_named(schema)}
    assert unnamed == set(WITHOUT_A_VIEW)
    assert len(list(answers(document))) >= 30


def test_every_body_is_a_view(document: dict[str, Any]) -> None:
    assert {route for route, schema in bodies(document) if "$ref" not in schema} == set()
    assert len(list(bodies(document))) >= 11
    assert dict(bodies(document))["patch", "models/{model}"] == {"$ref": "#/components/schemas/NewSettings"}


def test_every_body_refuses_fields_that_it_does_not_know(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    names = {schema["$ref"].removeprefix("#/components/schemas/") for _, schema in bodies(document)}
    assert {name for name in names if components[name].get("additionalProperties") is not False} == set()


def of_any_shape(schema: dict[str, Any]) -> bool:
    if schema.get("type") == "object":
        return not schema.get("additionalProperties") and "properties" not in schema
    return not {"type", "$ref", "anyOf", "enum", "const"} & schema.keys()


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and those inside it, without the components that it refers to."""
    yield schema
    inside = [schema.get("items"), schema.get("additionalProperties"), *schema.get("prefixItems", ())]
    inside += schema.get("anyOf", [])
    for part in inside:
        if isinstance(part, dict):
            yield from parts(part)


def test_every_field_of_a_body_and_of_an_answer_has_a_type(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    untyped: set[tuple[str, str]] = set()
    exchanged = [*bodies(document), *answers(document)]
    waiting = [part["$ref"] for _, schema in exchanged for part in parts(schema) if "$ref" in part]
    visited: set[str] = set()
    while waiting:
        name = waiting.pop().removeprefix("#/components/schemas/")
        if name in visited:
            continue
        visited.add(name)
        fields = components[name].get("properties", {})
        assert fields or "enum" in components[name], name
        for field, kind in fields.items():
            for part in parts(kind):
                waiting += [part["$ref"]] if "$ref" in part else []
                if of_any_shape(part):
                    untyped.add((name, field))
    assert untyped == set(OF_ANY_SHAPE)
    assert {"NewSettings", "VersionDetail", "Release", "Selector", "RolloutView", "ExperimentView"} <= visited


def test_a_view_says_what_its_fields_are(document: dict[str, Any]) -> None:
    version = document["components"]["schemas"]["VersionDetail"]
    assert version["description"].startswith("A publication, with the document")
    assert version["properties"]["release"] == {"$ref": "#/components/schemas/Release"}
    assert set(version["required"]) == set(version["properties"])
    assert "from" in document["components"]["schemas"]["DeltaView"]["properties"]


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path.removeprefix("/{namespace}/admin/v1/")): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def problem_statuses(operation: dict[str, Any]) -> set[int]:
    return {int(status) for status in operation["responses"] if not status.startswith("2")}


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    contents = {
        (method, status): response.get("content")
        for (method, _), operation in operations(document).items()
        for status, response in operation["responses"].items()
        if not status.startswith("2")
    }
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert all(content == (None if method == "head" else problem) for (method, _), content in contents.items())
    assert {int(status) for _, status in contents} == {400, 401, 403, 404, 409, 413, 429, 503, 507}
    assert set(document["components"]["schemas"]["Problem"]["required"]) == {"title", "status", "detail"}


@pytest.mark.parametrize(
    ("method", "path", "further"),
    [
        ("get", "models", set()),
        ("get", "models/{model}", {404}),
        ("patch", "models/{model}", {404, 409, 413}),
        ("post", "rollouts", {404, 409, 413}),
        ("put", "artifacts/{sha256}", {404, 409, 413}),
        ("head", "artifacts/{sha256}", {404}),
        ("get", "user-reports", {404}),
        ("get", "rollouts/{identifier}/evidence/{form}", {404}),
        ("post", "collect", set()),
    ],
)
def test_a_route_names_the_problems_it_may_answer(
    document: dict[str, Any], method: str, path: str, further: set[int]
) -> None:
    assert problem_statuses(operations(document)[method, path]) == {400, 401, 403, 429, 503, 507} | further


def test_every_route_but_those_to_sign_in_asks_for_a_token(document: dict[str, Any]) -> None:
    scheme = document["components"]["securitySchemes"]["adminToken"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    open_to_all = {route for route, each in operations(document).items() if not each.get("security")}
    assert open_to_all == {("post", "sign-in"), ("post", "sign-in/begin")}
    assert all(each["security"] == [{"adminToken": []}] for each in operations(document).values() if "security" in each)
