"""What the site is made of beside its pages: notebooks as pages, the reference, the order of the sections."""

import json
import re
from importlib import import_module
from pathlib import Path

from mkdocs.structure.files import File

import deadweight

ORDER = ["Tutorials", "How to", "Results", "Explanation", "Reference"]
DOOR, COMMANDS = "<!-- every public name -->", "<!-- every command -->"


def on_files(files, config):
    """Each notebook becomes a page of the same name, with the outputs it was saved with."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        text = page(json.loads(Path(notebook.abs_src_path).read_text(encoding="utf-8")))
        files.append(File.generated(config, notebook.src_uri.replace(".ipynb", ".md"), content=text))
    return files


def page(notebook):
    return "\n\n".join(part for cell in notebook["cells"] for part in parts(cell))


def parts(cell):
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [re.sub(r"\.ipynb\)", ".md)", source)]
    shown = [output(one) for one in cell["outputs"]]
    return [f"```python\n{source}\n```", *(text for text in shown if text)]


def output(one):
    data = one.get("data", {})
    if "text/html" in data:
        return f'<div class="output" markdown="0">{"".join(data["text/html"])}</div>'
    text = "".join(one.get("text", data.get("text/plain", ""))).rstrip()
    return f"```text\n{text}\n```" if text else ""


def on_page_markdown(markdown, page, config, files):
    """The reference follows the package: every name of its door, every command with its help."""
    markdown = re.sub(r"\.ipynb\)", ".md)", markdown)
    if DOOR in markdown:
        return markdown.replace(DOOR, "\n\n".join(section(*item) for item in sections().items()))
    if COMMANDS in markdown:
        from deadweight.cli import app

        return markdown.replace(COMMANDS, app.generate_docs(output_format="markdown", heading_level=2))
    return markdown


def sections():
    """Public names by the package they live in, in the order of the door."""
    names = {}
    for name, home in deadweight._HOME.items():
        if name in deadweight.__all__:
            names.setdefault(home, []).append(name)
    return names


def section(home, names):
    """Values (registries) are listed by name; functions and classes bring their docstrings."""
    lines = [f"## {home.replace('studies.', '')}"]
    for name in names:
        value = getattr(import_module(f"deadweight.{home}"), name)
        if name.isupper():
            lines.append(
                f"### {name}\n\nThe registry of {value.kind}s: {', '.join(f'`{one}`' for one in value.names())}."
            )
        else:
            lines.append(f"::: {value.__module__}.{value.__qualname__}")
    return "\n\n".join(lines)


def on_nav(nav, config, files):
    """Tutorials first: what is found in the folders comes in alphabetical order."""
    place = {title: at for at, title in enumerate(ORDER, start=1)}
    nav.items.sort(key=lambda item: place.get(item.title, 0 if not item.children else len(ORDER) + 1))
    return nav
