"""What an ERB template may not say here, or what it says and Ruby refuses as well."""


class Refusal(Exception):
    """A reason (the text) and the template's line (int from 1, None where the statement's own is it)."""

    def __init__(self, reason, line=None):
        Exception.__init__(self, reason)
        self.line = line
