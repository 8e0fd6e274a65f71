"""One process per file; each wires the core to adapters, and knows no other service."""
