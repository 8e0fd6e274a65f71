"""The live page over HTTP: Starlette, server-sent events, and a page that ships with the package."""
