"""The files of infra/: valid as far as they can be looked at without containers, and of one mind about the topology.

`make test-infra` runs what they say, and renders the chart.
"""

import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from tests.infra.topology import INFRA, METRICS, OURS, commands_of, compose, env_example, services
from tsds_pipeline.project import DAGSTER_YAML

REPOSITORY = INFRA.parent
DOCKERFILE = (INFRA / "Dockerfile").read_text("utf-8")


def variables_of_compose() -> set[str]:
    return set(re.findall(r"\$\{(\w+)", (INFRA / "compose.yaml").read_text("utf-8")))


def test_compose_follows_the_specification():
    """check-jsonschema brings the schema of compose-spec along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, INFRA / "compose.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_proxy_is_published():
    found = services()
    assert set(found) == {"postgres", *OURS, METRICS, "proxy"}
    assert [name for name, service in found.items() if "ports" in service] == ["proxy"]
    assert [name for name, service in found.items() if "outside" in service["networks"]] == ["proxy"]


def test_every_service_restarts_and_says_whether_it_is_well():
    for name, service in services().items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert not service.get("privileged"), name


def test_the_three_of_ours_share_image_and_variables():
    found = services()
    assert len({found[name]["image"] for name in (*OURS, METRICS)}) == 1
    assert found["code"]["environment"] == found["daemon"]["environment"] == found["web"]["environment"]
    assert found["code"]["environment"]["TSDS_AUTOMATION"] == "on"


def test_the_named_volumes_are_those_in_use():
    """What is a path is a folder of the machine; everything else has to be declared."""
    used = {volume.split(":")[0] for service in services().values() for volume in service.get("volumes", ())}
    assert {name for name in used if not name.startswith((".", "/", "x"))} == set(compose()["volumes"])


def test_every_variable_is_in_the_example():
    example = (INFRA / "env.example").read_text("utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert variables_of_compose() == named


def test_the_example_holds_no_secret():
    secret = [name for name in env_example() if name.endswith(("PASSWORD", "HASH"))]
    assert len(secret) == 2
    assert all(not env_example()[name] for name in secret)
    assert "/infra/.env" in (REPOSITORY / ".gitignore").read_text("utf-8").splitlines()


def test_the_example_names_this_version():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert env_example()["TSDS_VERSION"] == project["version"]
    assert set(re.findall(r"-t tsds:(\S+)", DOCKERFILE)) == {project["version"]}


def test_images_are_pinned():
    bases = [found["image"] for name, found in services().items() if name not in (*OURS, METRICS)]
    bases += re.findall(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 3
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-[a-z-]+", base) for base in bases)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2


def test_the_client_of_postgres_is_of_its_version():
    """pg_dump refuses a newer server."""
    [major] = re.findall(r"postgresql-client-(\d+)", DOCKERFILE)
    assert services()["postgres"]["image"].startswith(f"postgres:{major}.")


def instructions(name: str) -> list[list[str]]:
    """The words of each instruction ``name`` of the Dockerfile, in order."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_the_image_does_not_run_as_root():
    assert instructions("USER") == [["10001:10001"]]
    assert DOCKERFILE.rindex("USER ") > DOCKERFILE.rindex("RUN ")


def test_what_the_image_is_made_of_is_there_and_not_ignored():
    ignored = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    sources = {
        source for words in instructions("COPY") if not words[0].startswith("--") for source in words[:-1]
    }
    assert sources == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []


def test_the_image_and_the_services_mean_the_same_places():
    env = dict(word.split("=", 1) for words in instructions("ENV") for word in words)
    for name in ("DAGSTER_HOME", "TSDS_PROJECT", "DAGSTER_DISABLE_TELEMETRY"):
        assert services()["code"]["environment"][name] == env[name]
    [[work]] = [words for words in instructions("WORKDIR") if words != ["/build"]]
    copied = {
        words[0]: f"{work}/{words[-1]}" for words in instructions("COPY") if words[0].startswith("infra/")
    }
    # The one dagster.yaml, where Dagster looks for it; nothing is mounted over it.
    assert copied["infra/dagster.yaml"] == f"{env['DAGSTER_HOME']}/dagster.yaml"
    mounted = {volume.split(":")[1] for name in OURS for volume in services()[name].get("volumes", ())}
    assert mounted == {env["TSDS_PROJECT"], services()["code"]["environment"]["TSDS_BACKUPS"]}


def test_dagster_understands_its_settings(tmp_path):
    (tmp_path / "dagster.yaml").write_text((INFRA / "dagster.yaml").read_text("utf-8"))
    settings, _ = dagster_instance_config(str(tmp_path))
    assert settings["run_monitoring"]["enabled"]
    assert not settings["telemetry"]["enabled"]


def test_the_limits_are_those_of_a_project_of_its_own():
    """But for the number of runs, which is the machine's."""
    ours = yaml.safe_load((INFRA / "dagster.yaml").read_text("utf-8"))
    own = yaml.safe_load(DAGSTER_YAML.format(runs=4))
    for key in ("run_coordinator", "concurrency", "sensors", "schedules", "telemetry", "nux"):
        assert ours[key] == own[key], key
    assert own["run_monitoring"].items() <= ours["run_monitoring"].items()


def test_the_database_is_that_of_the_variables():
    database = yaml.safe_load((INFRA / "dagster.yaml").read_text("utf-8"))["storage"]["postgres"][
        "postgres_db"
    ]
    named = {value["env"] for value in database.values() if isinstance(value, dict)}
    workspace = yaml.safe_load((INFRA / "workspace.yaml").read_text("utf-8"))["load_from"][0]["grpc_server"]
    named |= {workspace["host"]["env"], workspace["port"]["env"]}
    assert named <= services()["code"]["environment"].keys()


@pytest.mark.parametrize("script", ["backup.sh", "restore.sh"])
def test_the_scripts_are_scripts(script):
    path = INFRA / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


PAGE = (INFRA / "README.md").read_text("utf-8")


def test_every_command_of_the_page_is_run_or_is_docker_s():
    """Those of the language sh run in test_stack.py."""
    assert set(re.findall(r"^```(\w*)$", PAGE, re.MULTILINE)) == {"", "bash", "cron", "sh"}
    ours = [line.split("#")[0].strip() for line in commands_of(PAGE, "bash")]
    prefix = "docker compose -f infra/compose.yaml --env-file infra/.env "
    assert ours[1].startswith("cp infra/env.example infra/.env")
    typed = [line.removeprefix(prefix) for line in ours if line.startswith(prefix)]
    assert len(typed) == len(ours) - 1
    names = set(services())
    for line in typed:
        verb, *words = shlex.split(line)
        assert verb in ("build", "exec", "logs", "ps", "restart", "run", "stop", "up"), line
        services_named = [word for word in words if word in names]
        if verb in ("exec", "logs", "restart", "run", "stop"):
            assert services_named, line
        for word in words:
            if word.startswith("infra/"):
                assert (REPOSITORY / word).exists(), line


def test_links_of_the_page_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert [link for link in links if not (INFRA / link).exists()] == []
