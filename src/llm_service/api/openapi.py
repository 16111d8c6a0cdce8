"""The OpenAPI document: what Litestar reads off the handlers, made exact, and what it cannot know.

Litestar loses the constraints of optional fields and knows neither the headers of answers nor the webhooks. The
schemas here are msgspec's own, which also decodes and encodes the bodies.
"""

from collections.abc import Collection, Iterator
from copy import deepcopy
from inspect import cleandoc
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from llm_service import __version__
from llm_service.api.auth import is_guarded
from llm_service.api.openapi_examples import EXAMPLES
from llm_service.api.openapi_facts import (
    ENDINGS,
    FACTS,
    HEADERS,
    JSON,
    PARAMETERS,
    REF,
    Node,
    schema_paths,
    unhealthy,
    unrouted,
    webhook,
)
from llm_service.errors import RouteNotFound
from llm_service.jobs.report import WebhookBody

STOCK_PHRASES = {"Request fulfilled, document follows", "Request accepted, processing continues off-line"}

DESCRIPTION = """Submit LLM workflows with the context of who asked and why; each becomes a job that is never
lost, never owned twice and never paid for twice, and is reported by a signed webhook.

Every route below `/api/v1` needs the header `X-API-Secret`. Every error has one envelope:
`{"detail": {"error": CODE, "message": TEXT, ...}}`. What no route answers is 404 `RouteNotFound` or 405
`MethodNotAllowed`. Times are ISO 8601 with offset."""


class DocumentPlugin(JsonRenderPlugin):
    """Serves the document. It is made at the first request and kept: one plugin belongs to one app."""

    def __init__(self) -> None:
        super().__init__(path=["/openapi.json", "/"])
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: Node) -> bytes:
        if self._rendered is None:
            self._rendered = msgspec.json.encode(complete(openapi_schema, wire_structs(request.app)))
        return self._rendered


def in_the_envelope(response: Response[Any]) -> Response[Any]:
    """Litestar answers what is not there below /schema itself, with a page of HTML."""
    if response.status_code == 404:
        raise RouteNotFound("There is nothing at this address.")
    return response


def openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="llm-service",
        version=__version__,
        description=DESCRIPTION,
        path="/schema",
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=in_the_envelope
        ),
        # The viewers would load their scripts from elsewhere: the document alone is served.
        render_plugins=[DocumentPlugin()],
        tags=[
            Tag(name="Workflows", description="What can be run, and how to have it run."),
            Tag(name="Jobs", description="What became of it."),
            Tag(name="Health", description="Open routes."),
            Tag(name="Webhooks", description="What is sent to a job's webhook_url."),
        ],
        security=[{"ApiSecret": []}],
        components=Components(
            security_schemes={
                "ApiSecret": SecurityScheme(
                    type="apiKey",
                    name="X-API-Secret",
                    security_scheme_in="header",
                    description="One of the secrets in LLM_SERVICE_API_SECRET.",
                )
            }
        ),
    )


def wire_structs(app: Litestar) -> set[type[msgspec.Struct]]:
    """Collect every struct that a handler takes, returns or documents."""
    routes = [route for route in app.routes if isinstance(route, HTTPRoute)]
    return {struct for route in routes for handler in route.route_handlers for struct in _structs_of(handler)}


def _structs_of(handler: HTTPRouteHandler) -> Iterator[type[msgspec.Struct]]:
    kinds = [*_annotations(handler.parsed_return_field)]
    if handler.parsed_data_field is not None:
        kinds += _annotations(handler.parsed_data_field)
    kinds += [spec.data_container for spec in (handler.responses or {}).values()]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind


def _annotations(field: FieldDefinition) -> Iterator[Any]:
    yield field.annotation
    for inner in field.inner_types:
        yield from _annotations(inner)


def complete(schema: Node, structs: Collection[type[msgspec.Struct]]) -> Node:
    """Make the document exact. `schema` is Litestar's and stays as it is; `structs` are those it may name."""
    document: Node = msgspec.to_builtins(schema)
    components, paths = document["components"], document["paths"]
    named = [struct for struct in structs if struct.__name__ in components["schemas"]]
    components["schemas"] |= struct_schemas([*named, WebhookBody])
    components["headers"] = HEADERS
    components["responses"] = unrouted()
    paths |= schema_paths()
    for path, item in paths.items():
        for operation in item.values():
            if path in {"/health", "/health/ready"}:
                operation["responses"]["503"] = unhealthy()
            complete_operation(operation, components["schemas"])
            if not is_guarded(path):
                operation["security"] = []
    document["webhooks"] = {f"workflow.{status}": {"post": webhook(status)} for status in ENDINGS}
    return document


def struct_schemas(structs: Collection[type[msgspec.Struct]]) -> Node:
    """Make the component schemas of structs and of what they hold."""
    _, schemas = msgspec.json.schema_components(structs, ref_template=REF)
    for name in FACTS.keys() & schemas.keys():
        for field, facts in FACTS[name].items():
            schemas[name]["properties"][field] |= facts
    for name, schema in schemas.items():
        if "description" in schema:
            schema["description"] = cleandoc(schema["description"])
        for field, node in schema.get("properties", {}).items():
            complete_field(node)
            if node.get("default", ...) is None:
                del node["default"]  # absent and null are the same
            elif "default" in node and not name.endswith("Request"):
                del node["default"]  # an answer has the field always
                schema["required"].append(field)
    if "ErrorDetail" in schemas:
        schemas["ErrorDetail"]["additionalProperties"] = True
    return schemas


def complete_field(node: Node) -> None:
    """Say what msgspec leaves to be understood and generators of types misunderstand."""
    for part in (node, *node.get("anyOf", ())):
        if part.get("type") == "object":
            part.setdefault("additionalProperties", True)
        if all(isinstance(value, str) for value in part.get("enum", [None])):
            part["type"] = "string"


def complete_operation(operation: Node, schemas: Node) -> None:
    for parameter in operation.get("parameters", ()):
        complete_parameter(parameter)
    if body := operation.get("requestBody"):
        add_examples(body)
    responses = operation["responses"]
    for status in [status for status, answer in responses.items() if _is_litestars_own(status, answer)]:
        del responses[status]
    for status, answer in responses.items():
        complete_answer(status, answer, schemas)
        if answer["description"] in STOCK_PHRASES:
            answer["description"] = operation["summary"] + "."


def complete_parameter(parameter: Node) -> None:
    parameter |= deepcopy(PARAMETERS.get(parameter["name"], {}))
    complete_field(parameter["schema"])
    if parameter["schema"].get("description") == parameter.get("description"):
        parameter["schema"].pop("description", None)


def complete_answer(status: str, answer: Node, schemas: Node) -> None:
    name = _struct_name(answer)
    if answer["description"] in STOCK_PHRASES:
        answer["description"] = schemas.get(name, {}).get("description", answer["description"])
    headers = {*answer.get("headers", {}), "X-Request-ID"}
    if name == "ErrorResponse" and status in {"429", "503"}:
        headers.add("Retry-After")
    answer["headers"] = {header: {"$ref": f"#/components/headers/{header}"} for header in sorted(headers)}
    for content in answer.get("content", {}).values():
        for example in content.get("examples", {}).values():
            example.pop("id", None)  # Litestar's own; OpenAPI knows no such field
    if "examples" not in answer.get("content", {}).get(JSON, {}):
        add_examples(answer)


def add_examples(body: Node) -> None:
    if examples := EXAMPLES.get(_struct_name(body)):
        body["content"][JSON]["examples"] = {
            summary.replace(" ", "-").lower(): {"summary": summary, "value": value}
            for summary, value in examples.items()
        }


def _struct_name(body: Node) -> str:
    schema = body.get("content", {}).get(JSON, {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _is_litestars_own(status: str, answer: Node) -> bool:
    """Whether this is the 400 that Litestar documents for any handler with parameters; none here answers so."""
    return status == "400" and _struct_name(answer) != "ErrorResponse"
