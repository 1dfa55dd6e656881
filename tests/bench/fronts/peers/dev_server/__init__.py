"""A project for LangGraph's dev server."""
