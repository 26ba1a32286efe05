"""General automata."""
