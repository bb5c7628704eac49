"""A small reader of C source for the house checks: no preprocessor, no compiler, the standard library only.

blank() replaces comments, string and character literals and preprocessor lines by blanks (line ends stay), so that
patterns and braces in what is left are code. functions() finds the function bodies in it.
"""
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOKEN = re.compile(r"""
    (?P<comment> /\*.*?\*/ | //(?:\\\n|[^\n])* )
  | (?P<literal> (?:u8|[uUL])?"(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
  | (?P<directive> ^[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])* )
""", re.S | re.M | re.X)


def files(folders, extensions):
    """Paths under the root, sorted, as 'src/core/status.c'."""
    found = []
    for folder in folders:
        for base, dirs, names in os.walk(os.path.join(ROOT, folder)):
            dirs[:] = sorted(d for d in dirs if not d.startswith(".") and d != "__pycache__")
            found += [os.path.relpath(os.path.join(base, n), ROOT) for n in names if n.endswith(extensions)]
    return sorted(found)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", newline="") as f:
        return f.read()


def blank(text, keep=()):
    """text with comments, literals and directives blanked, except the kinds in keep."""
    def replace(match):
        if match.lastgroup in keep:
            return match.group(0)
        return re.sub(r"[^\n]", " ", match.group(0))
    return TOKEN.sub(replace, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def name_before(head):
    """The name of the function whose '{' follows head, or None when the brace opens something else."""
    head = re.sub(r"__attribute__\s*\(\(.*?\)\)", " ", head, flags=re.S).rstrip()
    if not head.endswith(")"):
        return None
    depth = 0
    for i in range(len(head) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(head[i], 0)
        if depth == 0:
            match = re.search(r"([A-Za-z_]\w*)\s*$", head[:i])
            return match.group(1) if match and "=" not in head[:i] else None
    return None


def functions(text):
    """[(name, first line, last line)] of the function definitions in text; the first line is that of the name."""
    code = blank(text)
    found, depth, start, name, opened = [], 0, 0, None, 0
    for match in re.finditer(r"[{};]", code):
        c, at = match.group(0), match.start()
        if c == "{":
            if depth == 0:
                name = name_before(code[start:at])
                if name:
                    opened = start + re.search(r"\b%s\s*\(" % name, code[start:at]).start()
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                if name:
                    found.append((name, line_of(code, opened), line_of(code, at)))
                name, start = None, at + 1
        elif depth == 0:
            start = at + 1
    if depth != 0:
        raise ValueError("braces do not balance: %+d at the end" % depth)
    return found
