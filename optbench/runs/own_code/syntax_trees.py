"""Python source as a syntax tree: its imports, and a digest of its meaning."""

import ast
import hashlib
from collections.abc import Iterator

# calls that load the module that a literal names, as in `import_module("helper")`
LOADERS = ("import_module", "__import__", "get_class", "get_method", "get_static_method",
           "get_object", "locate")  # fmt: skip
# calls that load files which no literal names
FILE_LOADERS = ("spec_from_file_location", "SourceFileLoader", "iter_modules", "walk_packages",
                "run_path", "run_module", "exec")  # fmt: skip


def parse(source: str | bytes) -> ast.Module | None:
    """Return the syntax tree; None for text that is no Python, or nested too deeply."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def digest(source: str | bytes) -> str:
    """Return a digest of the syntax tree without comments, docstrings and layout.

    The digest has 12 hex digits. For source that cannot be parsed, the bytes count, so that every
    edit changes the digest. `ast.dump` would not do: its text depends on the version of Python.
    """
    tree = parse(source)
    try:
        data = source if tree is None else "".join(_text(tree))
    except RecursionError:
        data = source
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:12]


def _text(node: object) -> Iterator[str]:
    """Yield a node's text in pieces, without positions, empty fields and docstrings."""
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
            # a function of a docstring alone equals one of `pass`
            if not (_is_lone_string(item) or isinstance(item, ast.Pass)):
                yield from _text(item)
                yield ","
        yield "]"
    else:
        yield repr(node)


def _is_lone_string(node: object) -> bool:
    """Return whether a statement is a string alone, such as a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def imports(tree: ast.Module, package: str) -> list[str]:
    """Return the absolute names that the source imports, inside functions too.

    package: the start of relative imports. A name may be that of an object in a module: for
    `from a import b` both `a` and `a.b` are returned.
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


def loads_unnamed(tree: ast.Module) -> bool:
    """Return whether the source loads modules by names that it makes up at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            method = name == "exec" and isinstance(node.func, ast.Attribute)
            if name in FILE_LOADERS and not method:
                return True
            if name in LOADERS and not (node.args and isinstance(node.args[0], ast.Constant)):
                named = [k.value for k in node.keywords if k.arg in ("name", "path")]
                if not any(isinstance(value, ast.Constant) for value in named):
                    return True
    return False


def _loaded(node: ast.Call, package: str) -> Iterator[str]:
    """Yield the module that a call of one of `LOADERS` with a literal loads."""
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    given = [*node.args, *(k.value for k in node.keywords if k.arg in ("name", "path"))]
    if name in LOADERS and given and isinstance(given[0], ast.Constant):
        text = given[0].value
        if isinstance(text, str):
            yield absolute(text, package)


def absolute(name: str, package: str) -> str:
    """Return the absolute name: `p.a` for `..a` in `p.q`; "" outside of the package."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *filter(None, [name[level:]])])


def defined(tree: ast.Module) -> set[str]:
    """Return the names of classes, at any depth, and of assigned variables."""
    nodes = list(ast.walk(tree))
    assigned = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return assigned | {node.name for node in nodes if isinstance(node, ast.ClassDef)}


def names(tree: ast.Module) -> set[str]:
    """Return the names that the source reads or sets."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
