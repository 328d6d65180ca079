"""fedsec: security and privacy of federated learning for medical images."""

__version__ = "0.1.0"
