"""Formats Markdown tables for the scripts in this folder. Uses only the standard library."""


def table(head, rows):
    """Returns text cells as a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in [head, *rows]]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines)
