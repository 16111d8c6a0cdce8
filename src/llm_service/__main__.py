"""`python -m llm_service` is the command `llm-service`."""

from llm_service.cli import main

main(prog_name="llm-service")
