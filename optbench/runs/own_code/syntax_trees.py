"""Python source as a syntax tree: a digest that only a change of meaning moves, and its imports."""

import ast
import hashlib
from collections.abc import Iterator

# Calls that load what a literal names: `importlib.import_module("helper")`.
LOADERS = ("import_module", "__import__", "get_class", "get_method", "get_static_method",
           "get_object", "locate")  # fmt: skip


def parse(source: str | bytes) -> ast.Module | None:
    """The syntax tree; None for what is no Python, or nested too deeply to be read."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def digest(source: str | bytes) -> str:
    """Twelve hex digits of the syntax tree without comments, docstrings and layout.

    Of source that cannot be parsed the bytes count, so that every edit moves the digest. The text
    of a tree is made here, and not by `ast.dump`, which writes one tree in another way from one
    version of Python to the next.
    """
    tree = parse(source)
    try:
        data = source if tree is None else "".join(_text(tree))
    except RecursionError:
        data = source
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:12]


def _text(node: object) -> Iterator[str]:
    """The pieces of a node's text, without positions, empty fields and lone strings."""
    if isinstance(node, ast.JoinedStr):
        # some versions split the text of an f-string into several constants
        texts = [getattr(part, "value", None) for part in node.values]
        yield "f["
        for text, part in zip(texts, node.values, strict=True):
            yield from [text] if isinstance(text, str) else ["{", *_text(part), "}"]
        yield "]"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name in node._fields:
            value = getattr(node, name, None)
            if name in ("kind", "type_comment") or value is None or value == []:
                continue
            yield f"{name}="
            yield from _text(value)
            yield ","
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            # a function of a docstring alone is as empty as one of `pass`
            if not (_is_lone_string(item) or isinstance(item, ast.Pass)):
                yield from _text(item)
                yield ","
        yield "]"
    else:
        yield repr(node)


def _is_lone_string(node: object) -> bool:
    """Whether a statement is a docstring, of whatever: it does nothing."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def imports(tree: ast.Module, package: str) -> list[str]:
    """Absolute names of what the source imports, inside functions too.

    package: that relative imports start from. A name may be a module's or, in `from a import b`,
    that of something in a module: `a.b` follows `a`.
    """
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = absolute("." * node.level + (node.module or ""), package)
            if home:
                found[home] = None
            for alias in node.names:
                if alias.name != "*":
                    found[f"{home}.{alias.name}".lstrip(".")] = None
        elif isinstance(node, ast.Call):
            found |= dict.fromkeys(_loaded(node, package))
    return [name for name in found if name]


def _loaded(node: ast.Call, package: str) -> Iterator[str]:
    """What a call of one of `LOADERS` with a literal loads."""
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    given = [*node.args, *(k.value for k in node.keywords if k.arg in ("name", "path"))]
    if name in LOADERS and given and isinstance(given[0], ast.Constant):
        text = given[0].value
        if isinstance(text, str):
            yield absolute(text, package)


def absolute(name: str, package: str) -> str:
    """`..a` in the package `p.q` is `p.a`; empty where it leads out of the package."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *filter(None, [name[level:]])])


def defined(tree: ast.Module) -> set[str]:
    """Names of the classes that stand in the source, at any depth, and names that are assigned."""
    nodes = list(ast.walk(tree))
    assigned = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return assigned | {node.name for node in nodes if isinstance(node, ast.ClassDef)}


def names(tree: ast.Module) -> set[str]:
    """Names that the source reads or sets."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
