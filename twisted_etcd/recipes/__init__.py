"""What is built on the public API of the client alone."""
