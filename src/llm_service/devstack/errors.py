"""The one error of this room; its text is for the person who typed `make run`."""


class DevstackError(Exception):
    """A server cannot be found or started; the message says what to install, set or stop."""
