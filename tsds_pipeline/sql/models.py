"""The models and checks of dbt_like_sql/: one SELECT a file, those of the package and those of a project.

A file of the project replaces the one of the package with the same name. What is wrong with a file is the problem of
its model alone; what cannot be a model at all is a problem of the project.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import tsds_pipeline
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings_errors import nearest
from tsds_pipeline.sql.lineage import Select, parse_select
from tsds_pipeline.sql.relations import RELATIONS

FOLDER = "dbt_like_sql"
SHIPPED = Path(tsds_pipeline.__file__).parent.parent / FOLDER
STAGING, MARTS, CHECKS = "staging", "marts", "checks"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_COMMENTS = re.compile(r"\A(?:[ \t]*(?:--[^\n]*)?\n)*")
_SEVERITY = re.compile(r"severity:\s*(\S*)")
_COLUMN = re.compile(r'(\w+)"?[ \t]*,?[ \t]*--[ \t]*(\S.*)$', re.MULTILINE)
WARN, ERROR = "warn", "error"


@dataclass(frozen=True)
class File:
    """One .sql file."""

    path: str
    """For messages: dbt_like_sql/marts/x.sql."""
    text: str

    @property
    def name(self) -> str:
        return Path(self.path).stem

    @property
    def folder(self) -> str:
        """STAGING, MARTS or CHECKS."""
        return Path(self.path).parent.name

    @cached_property
    def comments(self) -> list[str]:
        """The comment lines that it begins with."""
        lines = _COMMENTS.match(self.text + "\n")[0].splitlines()
        return [line.strip().removeprefix("--").strip() for line in lines if line.strip()]

    @property
    def description(self) -> str:
        return " ".join(line for line in self.comments if not _SEVERITY.match(line))

    @property
    def columns(self) -> dict[str, str]:
        """What the comments behind columns say of them."""
        return dict(_COLUMN.findall(self.text))


@dataclass(frozen=True)
class Check:
    """A SELECT of rows that must not be there, made with the model ``of``."""

    file: File
    select: Select
    severity: str
    of: str

    @property
    def name(self) -> str:
        return self.file.name


@dataclass(frozen=True)
class Model:
    """A SELECT whose result is stored."""

    file: File
    select: Select | None
    """None where the file is no single SELECT."""
    reads: tuple[str, ...] = ()
    """Relations and other models, in the order of the text."""
    problem: str | None = None
    """Why it cannot be made."""
    checks: tuple[Check, ...] = ()

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def code(self) -> str:
        """Code version: of the SQL and of its checks, which are looked at when it is made."""
        return content_hash(self.file.text, [check.file.text for check in self.checks])


@dataclass(frozen=True)
class Models:
    """All models, each after those that it reads, and what is wrong with files that are none."""

    models: dict[str, Model] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def load_models(root: Path | None, reserved: Iterable[str] = ()) -> Models:
    """The models of the package and of the project ``root``; none may be named like an asset, which are ``reserved``.

    Never fails: problems are told of the model that has them.
    """
    problems: list[str] = []
    taken = {*reserved, *RELATIONS}
    files: dict[str, File] = {}
    for folder in filter(None, (SHIPPED, root and root / FOLDER)):
        own: dict[str, File] = {}
        for file in _files(folder, problems):
            if problem := _unusable(file, own, taken):
                problems.append(problem)
            else:
                own[file.name] = file
        files |= own
    known = {name for name, file in files.items() if file.folder != CHECKS} | RELATIONS.keys()
    found = {name: _model(file, known) for name, file in files.items() if file.folder != CHECKS}
    models = dict(_in_order({name: _without_circle(model, found) for name, model in found.items()}))
    checks = [_check(file, models, problems) for file in files.values() if file.folder == CHECKS]
    for check in sorted(filter(None, checks), key=lambda check: check.name):
        models[check.of] = replace(models[check.of], checks=(*models[check.of].checks, check))
    return Models(models, tuple(problems))


def _files(folder: Path, problems: list[str]) -> Iterator[File]:
    for path in sorted(folder.rglob("*.sql")) if folder.is_dir() else ():
        name = f"{FOLDER}/{path.relative_to(folder).as_posix()}"
        if path.parent.parent != folder or path.parent.name not in (STAGING, MARTS, CHECKS):
            problems.append(f"{name}: is in no folder of models: move it to staging/, marts/ or checks/")
            continue
        try:
            yield File(name, path.read_text("utf-8"))
        except OSError as error:
            problems.append(f"{name}: cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            problems.append(f"{name}: is not UTF-8 (byte {error.start + 1}): save it as UTF-8")


def _unusable(file: File, own: Mapping[str, File], taken: Iterable[str]) -> str | None:
    """Why ``file`` cannot be a model or a check at all."""
    if not _NAME.fullmatch(file.name):
        return (
            f'{file.path}: "{file.name}" cannot be the name of an asset (lower-case letters, digits and "_", beginning '
            "with a letter, at most 63 characters): rename the file"
        )
    if file.name in taken:
        return f'{file.path}: "{file.name}" is a result of the pipeline already: rename the file'
    if file.name in own:
        return f"{file.path}: {own[file.name].path} has the same name: rename one of them"
    return None


def _model(file: File, known: Collection[str]) -> Model:
    try:
        select = parse_select(file.path, file.text)
        return Model(file, select, _reads(file, select, known))
    except TsdsError as error:
        return Model(file, None, problem=str(error))


def _reads(file: File, select: Select, known: Collection[str]) -> tuple[str, ...]:
    for table in select.tables:
        if table.name.removeprefix("main.") not in known:
            raise TsdsError(
                f'{file.path}:{table.line}: there is no relation or model "{table.name}"{nearest(table.name, known)}; '
                "`tsds sql .tables` lists them"
            )
    return tuple(dict.fromkeys(table.name.removeprefix("main.") for table in select.tables))


def _check(file: File, models: Mapping[str, Model], problems: list[str]) -> Check | None:
    """The check in ``file``, of the model it reads that is made last: then all of them are there."""
    try:
        select = parse_select(file.path, file.text)
        reads = _reads(file, select, {*models, *RELATIONS})
        severity = _severity(file)
    except TsdsError as error:
        problems.append(str(error))
        return None
    if of := next((name for name in reversed(models) if name in reads), None):
        return Check(file, select, severity, of)
    what = f"reads only {', '.join(reads)}" if reads else "reads nothing"
    problems.append(f"{file.path}: {what}: a check belongs to a model: read one, such as those of staging/")
    return None


def _severity(file: File) -> str:
    for number, line in enumerate(file.text.splitlines(), start=1):
        if (
            found := _SEVERITY.match(line.strip().removeprefix("--").strip())
            if line.startswith("--")
            else None
        ):
            if found[1] in (WARN, ERROR):
                return found[1]
            raise TsdsError(f'{file.path}:{number}: severity "{found[1]}": use "{WARN}" or "{ERROR}"')
    return ERROR


def _without_circle(model: Model, models: Mapping[str, Model]) -> Model:
    """``model``; one that reads itself in the end has that as its problem, and reads nothing."""
    circle = _way_back(model.name, lambda name: models[name].reads if name in models else ())
    if circle is None:
        return model
    way = " -> ".join(models[name].file.path for name in (*circle, model.name))
    problem = f"{model.file.path}: reads itself ({way}): take one of these out"
    return replace(model, reads=(), problem=problem)


def _way_back(start: str, reads: Callable[[str], Iterable[str]]) -> list[str] | None:
    """The shortest way from ``start`` to what reads it, ``start`` first; None where there is none."""
    before: dict[str, str | None] = {start: None}
    waiting = [start]
    for name in waiting:  # grows
        for read in reads(name):
            if read == start:
                way = [name]
                while (name := before[name]) is not None:
                    way.insert(0, name)
                return way
            if read not in before:
                before[read] = name
                waiting.append(read)
    return None


def _in_order(models: Mapping[str, Model]) -> Iterator[tuple[str, Model]]:
    """Each after those that it reads, staging first, else by name; what tells of everything comes last."""
    waiting = sorted(
        models.values(),
        key=lambda model: (_tells_of_everything(model, models), model.file.folder != STAGING, model.name),
    )
    done: set[str] = set()
    while waiting:
        model = next(one for one in waiting if not (set(one.reads) & models.keys()) - done)
        waiting.remove(model)
        done.add(model.name)
        yield model.name, model


def _tells_of_everything(model: Model, models: Mapping[str, Model]) -> bool:
    return any(
        RELATIONS[name].of_everything if name in RELATIONS else _tells_of_everything(models[name], models)
        for name in model.reads
    )
