"""Write site/: the page, the four notebooks with their outputs, README and docs, as static HTML.

    python scripts/build_site.py              # into site/

Nothing is fetched: notebooks go through nbconvert's own template with its styles inlined, documents
through its Markdown renderer. Pictures that documents name are copied beside them.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"""(?:href|src|srcset)=["']([^"']+)["']""")
TEMPLATE = ROOT / "scripts" / "site.html"


def navigation(depth: int) -> str:
    """Links to every part of the site, from a page in a folder of that depth."""
    up = "../" * depth
    entries = [("docs/index.html", "The page"), ("index.html", "README")]
    entries += [(f"notebooks/{p.stem}.html", p.stem) for p in notebooks()]
    entries += [(str(p.relative_to(ROOT).with_suffix(".html")), p.stem) for p in documents()[1:]]
    return " ".join(f'<a href="{up}{to}">{html.escape(name)}</a>' for to, name in entries)


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def documents() -> list[Path]:
    """README first."""
    found = [ROOT / name for name in DOCUMENTS] + sorted((ROOT / "docs").glob("*.md"))
    return [path for path in found if path.is_file()]


def place_of(path: Path) -> Path:
    """Where a file of the repository stands in the site."""
    name = path.relative_to(ROOT)
    if name == Path("README.md"):
        return Path("index.html")
    return name.with_suffix(".html") if name.suffix in {".md", ".ipynb"} else name


def relinked(text: str, source: Path, place: Path, site: Path) -> str:
    """Links between files of the repository as links of the site; what they name is copied."""

    def change(match: re.Match[str]) -> str:
        target = match[1]
        parts = urlsplit(html.unescape(target))
        if parts.scheme or parts.netloc or not parts.path:
            return match[0]
        named = (source.parent / unquote(parts.path)).resolve()
        if not named.is_relative_to(ROOT) or not named.exists():
            raise SystemExit(f"{source.relative_to(ROOT)} names {target}, which is not there.")
        if named.is_dir():
            named = named / "README.md"
            if not named.is_file():
                raise SystemExit(f"{source.relative_to(ROOT)} names {target}, a bare folder.")
        goal = place_of(named)
        if named.suffix == ".md" and named not in documents():
            write_document(named, site)
        elif named.suffix not in {".md", ".ipynb"}:
            (site / goal).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(named, site / goal)
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        link = os.path.relpath(goal, place.parent) + anchor
        return match[0].replace(target, html.escape(link))

    return LINK.sub(change, text)


def write_document(path: Path, site: Path) -> None:
    """One Markdown file as a page."""
    place = place_of(path)
    if (site / place).exists():
        return
    (site / place).parent.mkdir(parents=True, exist_ok=True)
    (site / place).touch()  # documents that name each other
    body = relinked(str(markdown2html(path.read_text("utf-8"))), path, place, site)
    parts = {
        "title": html.escape(path.stem),
        "navigation": navigation(len(place.parts) - 1),
        "body": body,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], TEMPLATE.read_text("utf-8"))
    (site / place).write_text(page, "utf-8")


def write_notebook(path: Path, site: Path) -> None:
    """One notebook with the outputs that are stored in it."""
    exporter = HTMLExporter(template_name="lab", embed_images=True)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    exporter.widget_renderer_url = ""
    body, _ = exporter.from_notebook_node(nbformat.read(path, 4))
    body = re.sub(r"""<script[^>]+src=["'](?:https?:)?//[^>]*></script>""", "", body)
    place = place_of(path)
    (site / place).parent.mkdir(parents=True, exist_ok=True)
    bar = f'<nav aria-label="Site" style="padding:10px 20px">{navigation(1)}</nav>'
    (site / place).write_text(re.sub(r"(<body[^>]*>)", rf"\1{bar}", body, count=1), "utf-8")


def broken_links(site: Path) -> list[str]:
    """Links of all pages that lead to no file of the site."""
    wrong = []
    for page in sorted(site.rglob("*.html")):
        if page.name == "index.html" and page.parent.name == "docs":
            continue  # one file by itself, tested in a browser
        text = re.sub(r"<script.*?</script>", "", page.read_text("utf-8"), flags=re.S)
        for target in LINK.findall(text):
            parts = urlsplit(html.unescape(target))
            if parts.scheme or parts.netloc or not parts.path:
                continue
            if not (page.parent / unquote(parts.path)).is_file():
                wrong.append(f"{page.relative_to(site)}: {target}")
    return wrong


def build(site: Path) -> None:
    """Write the whole site anew."""
    shutil.rmtree(site, ignore_errors=True)
    (site / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "index.html", site / "docs" / "index.html")
    for path in documents():
        write_document(path, site)
    for path in notebooks():
        write_notebook(path, site)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    args = parser.parse_args()
    build(args.out)
    wrong = broken_links(args.out)
    for line in wrong:
        print(f"This link leads nowhere: {line}", file=sys.stderr)
    pages = len(list(args.out.rglob("*.html")))
    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    print(f"{args.out}: {pages} pages, {size:,} bytes; open {args.out / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
