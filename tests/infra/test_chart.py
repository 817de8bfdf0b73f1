"""The chart, rendered by Helm's own library and checked against the schemas of Kubernetes; and whether it agrees with
compose.yaml. No cluster is asked: that it admits and schedules these is not checked."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.infra.topology import INFRA, METRICS, OURS, services

CHART = INFRA / "helm"
KUBERNETES = ("1.25", "1.34")
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
EXTERNAL = {
    "automation": False,
    "env": {"AWS_REGION": "eu-central-1"},
    "envFromSecrets": ["s3-credentials"],
    "imagePullSecrets": [{"name": "registry"}],
    "project": {"existingClaim": "corpus", "storageClass": "fast"},
    "code": {"nodeSelector": {"disk": "local"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    "postgresql": {"bundled": False, "host": "db.example.org", "port": 6432, "database": "history"},
    "ingress": {"enabled": True},
    "metrics": {"enabled": False},
}


def merged(base: Any, over: Any) -> Any:
    """``base`` with the values of ``over``, as Helm merges them."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: merged(base.get(key), value) for key, value in over.items()}


@pytest.mark.parametrize("values", [{}, EXTERNAL])
def test_values_follow_their_schema(values):
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(merged(VALUES, values), SCHEMA, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "wrong",
    [
        {"imagee": {}},
        {"postgresql": {"bundled": False}},
        {"postgresql": {"port": "5432"}},
        {"project": {"size": "many"}},
        {"automation": "on"},
        {"code": {"replicas": 2}},
        {"metrics": {"scrapedFrom": []}},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(VALUES, wrong), SCHEMA, cls=jsonschema.Draft7Validator)


def test_the_chart_is_of_this_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert services()["code"]["image"] == f"{VALUES['image']['repository']}:{chart['appVersion']}"
    assert services()["postgres"]["image"] == VALUES["postgresql"]["image"]


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a release "tsds" with these ``values``."""
    import helm_python

    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="tsds", namespace="ml")
    return [one for text in files.values() for one in yaml.safe_load_all(text) if one]


def containers(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The name, the pod and the container of each Deployment and StatefulSet."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            pod = one["spec"]["template"]["spec"]
            yield from ((container["name"], pod, container) for container in pod["containers"])


@pytest.mark.infra
@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [{}, EXTERNAL])
def test_kubernetes_knows_every_field(values, version):
    import kubernetes_validate

    objects = rendered(values)
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    assert {name for kind, name in names if kind == "Deployment"} == {f"tsds-{name}" for name in OURS}


@pytest.mark.infra
def test_helm_finds_nothing_wrong():
    import helm_python

    found = helm_python.lint(str(CHART))
    assert found["errors"] == []


@pytest.mark.infra
def test_the_chart_and_compose_agree():
    """The same commands, variables, ports and places; and both take dagster.yaml from the image."""
    composed = services()
    objects = rendered({})
    found = {name: (pod, container) for name, pod, container in containers(objects)}
    assert found.keys() == {*OURS, METRICS, "postgres"}
    for name in (*OURS, METRICS):
        _, container = found[name]
        env = {one["name"]: one.get("value") for one in container["env"]}
        assert container["args"] == composed[name]["command"]
        assert "command" not in container
        assert container["image"] == composed[name]["image"]
        # A secret comes from a secret (envFromSecrets).
        given = {key: value for key, value in composed[name]["environment"].items() if "WEBHOOK" not in key}
        expected = given | {
            "PGHOST": "tsds-postgres",
            "PGPASSWORD": None,
            "TSDS_CODE_HOST": "tsds-code",
        }
        assert env == expected
        mounted = {one["mountPath"] for one in container["volumeMounts"]} - {"/tmp"}
        assert mounted == {volume.split(":")[1] for volume in composed[name].get("volumes", ())}
    for name in ("code", "daemon"):
        check = found[name][1]["livenessProbe"]["exec"]["command"]
        assert check == composed[name]["healthcheck"]["test"][1:]
    path = found["web"][1]["livenessProbe"]["httpGet"]["path"]
    assert f":3000{path}'" in composed["web"]["healthcheck"]["test"][-1]
    ports = {
        one["metadata"]["name"]: one["spec"]["ports"][0]["port"]
        for one in objects
        if one["kind"] == "Service"
    }
    assert ports == {"tsds-code": 4000, "tsds-web": 3000, "tsds-metrics": 9464, "tsds-postgres": 5432}
    assert not [one for one in objects if one["kind"] == "ConfigMap"]


@pytest.mark.infra
@pytest.mark.parametrize("values", [{}, EXTERNAL])
def test_nothing_runs_as_root_or_twice(values):
    objects = rendered(values)
    for name, pod, container in containers(objects):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False
        assert "livenessProbe" in container
        assert container["resources"]["limits"]
    for one in objects:
        if one["metadata"]["name"] in ("tsds-code", "tsds-daemon") and one["kind"] == "Deployment":
            assert one["spec"]["replicas"] == 1
            assert one["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.infra
def test_an_external_database_and_an_ingress():
    objects = rendered(EXTERNAL)
    kinds = [one["kind"] for one in objects]
    assert "StatefulSet" not in kinds
    [ingress] = [one for one in objects if one["kind"] == "Ingress"]
    assert ingress["spec"]["tls"][0]["hosts"] == [ingress["spec"]["rules"][0]["host"]]
    assert "nginx.ingress.kubernetes.io/auth-secret" in ingress["metadata"]["annotations"]
    _, _, code = next(one for one in containers(objects) if one[0] == "code")
    env = {one["name"]: one.get("value") for one in code["env"]}
    assert (env["PGHOST"], env["PGPORT"], env["PGDATABASE"]) == ("db.example.org", "6432", "history")
    assert (env["TSDS_AUTOMATION"], env["AWS_REGION"]) == ("off", "eu-central-1")
    assert code["envFrom"] == [{"secretRef": {"name": "s3-credentials"}}]
    assert [one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"] == [
        "tsds-backups"
    ]


@pytest.mark.infra
def test_figures_are_for_those_who_scrape():
    scraping = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    objects = rendered({"metrics": {"scrapedFrom": scraping}})
    [policy] = [
        one for one in objects if one["metadata"]["name"] == "tsds-metrics" and one["kind"] != "Service"
    ]
    [rule] = policy["spec"]["ingress"]
    assert rule == {"from": scraping, "ports": [{"port": "metrics"}]}
    [code] = [
        one for one in objects if one["metadata"]["name"] == "tsds-code" and one["kind"] == "Deployment"
    ]
    labels = code["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    without = rendered({"metrics": {"enabled": False}})
    assert not [one for one in without if "metrics" in one["metadata"]["name"]]
    assert "metrics" not in {name for name, _, _ in containers(without)}


@pytest.mark.infra
def test_helm_refuses_wrong_values_too():
    import helm_python

    with pytest.raises(helm_python.HelmError):
        rendered({"postgresql": {"bundled": False}})
