"""Everything under /admin in one router."""

from litestar import Router

from llm_service.admin import actions, failures, insight, job, login, queue, static_files


def admin_router() -> Router:
    """The pages. Who comes in is the guard's affair, which stands around the whole application."""
    return Router(
        path="/admin",
        route_handlers=[
            login.login_page,
            login.login,
            login.logout,
            queue.show_queue,
            queue.show_rows,
            job.show_job,
            job.download_payload,
            insight.show_insight,
            insight.show_suggestions,
            actions.preview_action,
            actions.run_action,
            static_files.static_file,
            failures.anything_else,
        ],
        exception_handlers=failures.EXCEPTION_HANDLERS,
    )
