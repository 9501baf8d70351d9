"""The page of results: targets with what was reached, and below them every figure."""

from dataclasses import dataclass, field

from measure import Failed, say


@dataclass
class Goal:
    """One line of the issue's table."""

    what: str
    target: str
    ours: str
    theirs: str
    ratio: str
    met: str


@dataclass
class Table:
    """One kind of work."""

    title: str
    note: str = ""
    goals: list = field(default_factory=list)
    head: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    remarks: list = field(default_factory=list)

    def goal(self, what, target, ours, theirs, ratio, met):
        """Adds a line; `met` is a truth, or None where nothing was promised."""
        words = {True: "met", False: "**missed**", None: ""}
        self.goals.append(Goal(what, target, ours, theirs, ratio, words[met]))

    def at_most(self, what, limit, ours, theirs, unit="s", against=""):
        """Our figure may be at most `limit` times theirs."""
        ratio = ours / theirs
        target = f"≤ {limit:g}x {against}".strip()
        self.goal(what, target, show(ours, unit), show(theirs, unit), f"{ratio:.2f}x", ratio <= limit)

    def faster(self, what, factor, ours, theirs, unit="s", against=""):
        """We must be at least `factor` times as fast."""
        ratio = theirs / ours
        target = f"≥ {factor:g}x faster than {against}".strip()
        self.goal(what, target, show(ours, unit), show(theirs, unit), f"{ratio:.2f}x", ratio >= factor)

    def attempt(self, what, step, *arguments):
        """Does one step; if it fails, the page says so and goes on."""
        try:
            return step(*arguments)
        except (Failed, OSError, KeyError, ValueError, ZeroDivisionError) as problem:
            text = str(problem).replace("|", "/") or type(problem).__name__
            say(f"  {what} failed: {text}")
            self.failed(what, text)
            return None

    def failed(self, what, problem):
        self.goals.append(Goal(what, "", "failed", "", "", problem))


def show(value, unit="s"):
    """A figure with its unit: three digits that mean something."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" if i == 0 else "---:" for i in range(len(head))) + "|"]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def render(title, preamble, tables):
    """The whole page."""
    parts = [f"# {title}\n", *[line + "\n" for line in preamble], "## Targets\n"]
    for table in tables:
        if table.goals:
            parts.append(f"### {table.title}\n")
            parts.append(
                markdown(
                    ["work", "target", "slipway", "the other", "ratio", ""],
                    [(g.what, g.target, g.ours, g.theirs, g.ratio, g.met) for g in table.goals],
                )
            )
    parts.append("## Figures\n")
    for table in tables:
        if not table.rows and not table.remarks:
            continue
        parts.append(f"### {table.title}: figures\n")
        if table.note:
            parts.append(table.note + "\n")
        if table.rows:
            parts.append(markdown(table.head, table.rows))
        parts += [f"- {remark}\n" for remark in table.remarks]
    return "\n".join(parts)
