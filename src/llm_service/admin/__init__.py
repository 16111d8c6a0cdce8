"""The LLM Queue page at /admin: a client of the same reads and verbs as the jobs API."""
