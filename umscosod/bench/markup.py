"""The tables of a report, from the Markdown a terminal shows to HTML."""

from __future__ import annotations

from html import escape


def to_html(markdown: str) -> str:
    r"""Turn headings, lists, tables and paragraphs, as `umscosod.bench.table` writes them, into HTML.

    Parameters
    ----------
    markdown : str
        Blocks with an empty line between them; no markup inside a line.

    Returns
    -------
    str
        Escaped. The first row of a table is its head, the second its rule, and a row's first cell names it.

    Examples
    --------
    >>> to_html("## One & two\n\n- a\n- b")
    '<h2>One &amp; two</h2>\n<ul><li>a</li><li>b</li></ul>'
    >>> to_html("| method | S |\n| ------ | -: |\n| ours | 0.9 |")
    '<table><tr><th>method</th><th>S</th></tr><tr><th>ours</th><td>0.9</td></tr></table>'
    """
    return "\n".join(_block(block.splitlines()) for block in markdown.strip().split("\n\n"))


def _block(lines: list[str]) -> str:
    if lines[0].startswith("#"):
        marks, _, title = lines[0].partition(" ")
        return f"<h{len(marks)}>{escape(title)}</h{len(marks)}>"
    if lines[0].startswith("|"):
        return f"<table>{_row(lines[0], 'th')}{''.join(_row(line, 'td') for line in lines[2:])}</table>"
    if lines[0].startswith("- "):
        return f"<ul>{''.join(f'<li>{escape(line[2:])}</li>' for line in lines)}</ul>"
    return f"<p>{escape(' '.join(lines))}</p>"


def _row(line: str, tag: str) -> str:
    name, *figures = (escape(cell.strip()) for cell in line.strip("|").split("|"))
    return f"<tr><th>{name}</th>{''.join(f'<{tag}>{figure}</{tag}>' for figure in figures)}</tr>"
