"""The OpenAPI document: what Litestar reads off the handlers, and what it cannot know (secret, webhooks)."""

from litestar.config.app import AppConfig
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag

from llm_service import __version__

DESCRIPTION = """Submit LLM workflows with the context of who asked and why; each becomes a job that is never
lost, never owned twice and never paid for twice, and is reported by a signed webhook.

Every route below `/api/v1` needs the header `X-API-Secret`. Every error has one envelope:
`{"detail": {"error": CODE, "message": TEXT, ...}}`."""


def openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="llm-service",
        version=__version__,
        description=DESCRIPTION,
        path="/schema",
        # The viewers would load their scripts from elsewhere: the document alone is served.
        render_plugins=[JsonRenderPlugin(path=["/openapi.json", "/"])],
        tags=[
            Tag(name="Workflows", description="What can be run, and how to have it run."),
            Tag(name="Jobs", description="What became of it."),
            Tag(name="Health", description="Open routes."),
        ],
        security=[{"ApiSecret": []}],
        components=Components(
            security_schemes={
                "ApiSecret": SecurityScheme(type="apiKey", name="X-API-Secret", security_scheme_in="header")
            }
        ),
    )


__all__ = ["AppConfig", "openapi_config"]
