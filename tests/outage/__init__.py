"""A long outage under many registrations, watches and discoverers: ``python -m tests.outage``."""
