"""How the admin API describes itself at /schema: OpenAPI 3.1, from the same structs that it decodes and encodes.

Litestar describes the routes, and msgspec the structs: it knows every bound, tuple and tag of its own types, and gives
their docstrings, where litestar loses some and refuses a default that has no hash (a variant's selector).
"""

import importlib.metadata
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Schema, SecurityScheme
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

SECURITY_SCHEME = "adminToken"  # its name in the document


class StructNames(OpenAPISchemaPlugin):
    """Gives each struct that a route takes or answers a component of its name, and remembers the struct.

    `raw`: further structs, which views hold as JSON that is not decoded.
    """

    def __init__(self, *raw: type[msgspec.Struct]) -> None:
        self.structs: set[type[msgspec.Struct]] = {*raw}

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Whether it is a struct."""
        return not field_definition.is_union and field_definition.is_subclass_of(msgspec.Struct)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """A reference to a component, whose fields are filled in by `Description`."""
        self.structs.add(field_definition.annotation)
        component: Schema = schema_creator.create_component_schema(field_definition, required=[], property_fields={})
        return component


class Description(JsonRenderPlugin):
    """The document as JSON, with the structs' fields."""

    def __init__(self, names: StructNames) -> None:
        super().__init__(path=["/", "/openapi.json"])
        self._names = names

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document's bytes."""
        _, described = msgspec.json.schema_components(
            sorted(self._names.structs, key=lambda each: each.__qualname__),
            ref_template="#/components/schemas/{name}",
        )
        components = openapi_schema["components"]
        schemas = components["schemas"] | described
        return super().render(request, openapi_schema | {"components": components | {"schemas": schemas}})


def openapi_config(names: StructNames) -> OpenAPIConfig:
    """The document at /schema."""
    bearer = SecurityScheme(
        type="http",
        scheme="bearer",
        description="A token of a person or a machine; `init` wrote the first to admin.token.",
    )
    return OpenAPIConfig(
        "Whimbrel admin API",
        importlib.metadata.version("whimbrel"),
        render_plugins=[Description(names)],
        components=Components(security_schemes={SECURITY_SCHEME: bearer}),
    )
