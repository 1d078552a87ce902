"""The forms of a report: the same page as Markdown, or as one HTML file that needs nothing else.

A page has a title, an answer, and sections. A section has sentences, and at most one table and one plot.
"""

from collections.abc import Mapping, Sequence

import msgspec

from whimbrel.plain_text import in_html, in_markdown


class Section(msgspec.Struct, frozen=True):
    """A heading, sentences, at most one table, and at most one plot (by name)."""

    title: str
    sentences: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plot: str | None = None
    caption: str = ""


class Page(msgspec.Struct, frozen=True):
    """A whole report. `answer`: two words. `because`: a sentence. `tone`: the colour of the answer."""

    title: str
    about: str
    answer: str
    because: str
    sections: tuple[Section, ...]
    tone: str = "#1f6f8b"


def as_markdown(page: Page, plots: Mapping[str, str]) -> bytes:
    """The page as Markdown. `plots`: the file names of the plots."""
    answer, because = in_markdown(page.answer), in_markdown(page.because)
    lines = [f"# {in_markdown(page.title)}", "", in_markdown(page.about), "", f"**{answer}.** {because}", ""]
    for section in page.sections:
        lines += [f"## {in_markdown(section.title)}", ""]
        for sentence in section.sentences:
            lines += [in_markdown(sentence), ""]
        if section.rows:
            lines += [_row(section.columns), "|" + "---|" * len(section.columns)]
            lines += [_row(row) for row in section.rows] + [""]
        if section.plot is not None:
            lines += [f"![{in_markdown(section.caption)}]({plots[section.plot]})", ""]
    return "\n".join(lines).encode()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(in_markdown(cell) for cell in cells) + " |"


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #f4f5f6; margin: 0; }
main { max-width: 62rem; margin: 2rem auto; background: #fff; padding: 2rem 2.5rem 3rem; border-radius: 6px; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.meta { color: #666; margin: 0 0 1.4rem; }
.answer { border-left: 5px solid var(--tone); background: #f8f9fa; padding: .8rem 1.1rem; border-radius: 3px; }
.answer strong { display: block; font-size: 1.25rem; color: var(--tone); } .answer span { display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .92rem; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #e5e5e5; vertical-align: top; }
th { font-weight: 600; color: #555; } td { font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; } figcaption { color: #666; font-size: .88rem; }
"""


def as_html(page: Page, plots: Mapping[str, bytes]) -> bytes:
    """The page as one HTML file with everything inside. `plots`: the plots as SVG."""
    body = [_tag("h1", page.title), f'<p class="meta">{in_html(page.about)}</p>']
    answer = _tag("strong", page.answer) + _tag("span", page.because)
    body.append(f'<div class="answer" style="--tone: {page.tone}">{answer}</div>')
    for section in page.sections:
        body.append(_tag("h2", section.title))
        body += [_tag("p", sentence) for sentence in section.sentences]
        if section.rows:
            lines = ["".join(_tag("th", column) for column in section.columns)]
            lines += ["".join(_tag("td", cell) for cell in row) for row in section.rows]
            rows = "".join(f"<tr>{line}</tr>" for line in lines)
            body.append(f'<div class="wide"><table>{rows}</table></div>')
        if section.plot is not None:
            drawn = plots[section.plot].decode()
            body.append(f"<figure>{drawn}{_tag('figcaption', section.caption)}</figure>")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{_tag('title', page.title)}<style>{_STYLE}</style>"
    )
    text = "".join(body)
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{text}</main></body></html>'.encode()


def _tag(name: str, text: str) -> str:
    return f"<{name}>{in_html(text)}</{name}>"
