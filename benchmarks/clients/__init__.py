"""What is measured: a module for each client, imported in a process of its own alone."""
