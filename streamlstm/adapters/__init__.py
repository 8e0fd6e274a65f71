"""One technology per file; each implements a port of the core, and knows no service."""
