"""Puts what a comparison found into the page that shows it. For the comparisons in this folder; without any package."""

import re


def table(head, rows):
    """Rows of text cells as Markdown."""
    head, *lines = [f"| {' | '.join(cells)} |" for cells in [head, *rows]]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *lines])


def fill(page, name, text):
    """Replaces what stands in a page (a Path) between the markers of `name`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page.read_text(), flags=re.S))
