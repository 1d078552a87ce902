"""How the admin API describes itself: OpenAPI 3.1, from the same structs that it decodes and encodes."""

import importlib.metadata
from typing import Any

import msgspec
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition


def openapi_config() -> OpenAPIConfig:
    """The document at /schema."""
    return OpenAPIConfig(
        "Whimbrel admin API", importlib.metadata.version("whimbrel"), render_plugins=[JsonRenderPlugin(path="/")]
    )


class UnhashableDefaults(OpenAPISchemaPlugin):
    """Describes structs with a default that has no hash, as a variant's selector is: litestar's own way needs one."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Whether it is such a struct."""
        if field_definition.is_union or not field_definition.is_subclass_of(msgspec.Struct):
            return False
        return not all(_has_hash(field.default) for field in msgspec.structs.fields(field_definition.type_))

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """The component, with a property a field."""
        hints = field_definition.get_type_hints(include_extras=True, resolve_generics=True)
        fields = msgspec.structs.fields(field_definition.type_)
        component: Schema = schema_creator.create_component_schema(
            field_definition,
            required=sorted(field.encode_name for field in fields if field.required),
            property_fields={
                field.encode_name: FieldDefinition.from_annotation(hints[field.name], name=field.encode_name)
                for field in fields
            },
        )
        return component


def _has_hash(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
