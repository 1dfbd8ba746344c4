"""What the course's notebooks share: small functions, a module a subject."""

__version__ = "0.1.0"
