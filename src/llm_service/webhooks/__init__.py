"""Telling a caller's receiver: how a message is signed, where it may go, and one POST of it."""
