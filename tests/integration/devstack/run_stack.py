"""A small `make run` that a test starts as a process of its own, and kills."""

import argparse
import json
import sys
from pathlib import Path

from llm_service.devstack import ChildSpec, DevstackError, start_servers, supervise


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--throwaway", action="store_true")
    parser.add_argument("--orphan", action="store_true")
    options = parser.parse_args()
    try:
        servers = start_servers(options.state_dir, throwaway=options.throwaway, orphan=options.orphan)
    except DevstackError as error:
        say({"error": str(error)})
        return 2
    with servers:
        api = ChildSpec(name="api", argv=["/bin/sh", "-c", "echo '{\"api\": '$$'}'; exec sleep 600"])
        urls = {"database_url": servers.database_url, "redis_url": servers.redis_url}
        pids = {child.spec.name: child.pid for child in servers.children}
        return supervise(
            [api],
            keep=servers.children,
            on_line=lambda line: say({"line": line}),
            on_ready=lambda: say({**urls, "pids": pids}),
        )


def say(fact: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
