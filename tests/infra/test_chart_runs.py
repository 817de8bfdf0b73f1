"""Where the chart has runs go on: as jobs of Kubernetes or of Ray, in the words of dagster-k8s and dagster-ray.

No cluster is asked: dagster-k8s talks to a server here that takes down what is asked of it.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.instance.config import dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext, WorkerStatus

from tests.infra.test_chart import KUBERNETES, SCHEMA, VALUES, containers, merged, rendered
from tests.infra.topology import INFRA

SHARED = {"project": {"accessMode": "ReadWriteMany"}}
K8S = {
    **SHARED,
    "runs": {
        "launcher": "k8s",
        "limit": 20,
        "nodeSelector": {"disk": "local"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
    "env": {"AWS_REGION": "eu-central-1"},
    "envFromSecrets": ["s3-credentials"],
    "imagePullSecrets": [{"name": "registry"}],
}
RAY = {**SHARED, "runs": {"launcher": "ray", "ray": {"address": "http://head:8265", "memory": 2**33}}}


@pytest.mark.parametrize("launcher", ["k8s", "ray"])
@pytest.mark.parametrize("project", [{"accessMode": "ReadWriteMany"}, {"existingClaim": "corpus"}])
def test_values_that_share_the_project(launcher, project):
    values = merged(VALUES, {"runs": {"launcher": launcher}, "project": project})
    jsonschema.validate(values, SCHEMA, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "wrong",
    [
        {"runs": {"launcher": "k8s"}},
        {"runs": {"launcher": "ray"}},
        {"runs": {"launcher": "celery"}},
        {"runs": {"limit": 0}},
        {**SHARED, "runs": {"launcher": "ray", "ray": {"address": "head:6379"}}},
    ],
)
def test_values_that_cannot_work_are_refused(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(VALUES, wrong), SCHEMA, cls=jsonschema.Draft7Validator)


def instance_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The dagster.yaml that the pods get."""
    [found] = [one for one in objects if one["kind"] == "ConfigMap"]
    for name, pod, container in containers(objects):
        if name != "postgres":
            assert {"name": "dagster", "configMap": {"name": found["metadata"]["name"]}} in pod["volumes"]
            assert {
                "name": "dagster",
                "mountPath": "/opt/tsds/dagster/dagster.yaml",
                "subPath": "dagster.yaml",
            } in container["volumeMounts"]
    return yaml.safe_load(found["data"]["dagster.yaml"])


@pytest.mark.infra
@pytest.mark.parametrize("values", [K8S, RAY])
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(values, version):
    import kubernetes_validate

    for one in rendered(values):
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.infra
@pytest.mark.parametrize(("values", "limit"), [(K8S, 20), (RAY, 4)])
def test_the_instance_is_the_usual_one_but_for_its_runs(values, limit, tmp_path):
    given = instance_of(rendered(values))
    usual = yaml.safe_load((INFRA / "dagster.yaml").read_text("utf-8"))
    assert given.pop("run_launcher") != usual.pop("run_launcher")
    usual["concurrency"]["runs"]["max_concurrent_runs"] = limit
    assert given == usual
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance_of(rendered(values))))
    dagster_instance_config(str(tmp_path))


@pytest.mark.infra
def test_processes_start_again_for_another_instance():
    def checksum(values):
        found = [one for one in rendered(values) if one["kind"] == "Deployment"]
        return {one["spec"]["template"]["metadata"]["annotations"]["checksum/dagster"] for one in found}

    assert len(checksum(K8S)) == 1
    assert checksum(K8S) != checksum(merged(K8S, {"runs": {"limit": 21}}))


@dataclass
class Api:
    """What was asked of the API of Kubernetes: (verb, resource) and the jobs that were to be made."""

    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def api() -> Iterator[Api]:
    """A server that takes every job, and says of each that it is at work in a pod."""
    found = Api()
    job = {"kind": "Job", "apiVersion": "batch/v1", "metadata": {}, "status": {"active": 1}}
    pod = {"metadata": {"name": "pod"}, "spec": {"containers": []}}
    pods = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod]}

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else {}
            # /apis/batch/v1/namespaces/ml/jobs/NAME/status, /api/v1/namespaces/ml/pods
            _, _, place = self.path.partition("?")[0].partition("/namespaces/ml/")
            resource, *named = place.split("/")
            verbs = {"GET": "get" if named else "list", "POST": "create", "DELETE": "delete"}
            found.asked.append((verbs[self.command], "/".join([resource, *named[1:]])))
            if self.command == "POST":
                found.jobs.append(body)
            text = json.dumps(job if resource == "jobs" or named else pods).encode()
            self.send_response(201 if self.command == "POST" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def instance(api, tmp_path, monkeypatch) -> Iterator[dg.DagsterInstance]:
    """An instance with the run launcher of the chart, which takes the server here for the cluster that it is in."""
    import kubernetes.config

    cluster = {"clusters": [{"name": "here", "cluster": {"server": api.address}}]}
    cluster |= {"contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}]}
    cluster |= {"users": [{"name": "me", "user": {}}], "current-context": "here"}
    place = tmp_path / "kubeconfig"
    place.write_text(yaml.safe_dump(cluster))
    monkeypatch.setattr(
        kubernetes.config, "load_incluster_config", lambda: kubernetes.config.load_kube_config(str(place))
    )
    home = tmp_path / "home"
    home.mkdir()
    launcher = instance_of(rendered(K8S))["run_launcher"]
    (home / "dagster.yaml").write_text(
        yaml.safe_dump({"run_launcher": launcher, "telemetry": {"enabled": False}})
    )
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as found:
        yield found


def launched(instance: dg.DagsterInstance, project: Path, monkeypatch) -> dg.DagsterRun:
    """A run of the whole pipeline on ``project``, launched."""
    monkeypatch.setenv("TSDS_PROJECT", str(project))
    repository = ReconstructableRepository.for_module("tsds_pipeline.definitions", "defs", None)
    job = repository.get_reconstructable_job("refresh")
    run = instance.create_run_for_job(job.get_definition(), job_code_origin=job.get_python_origin())
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    return run


@pytest.mark.infra
def test_a_run_is_a_job_that_kubernetes_takes(instance, api, tmp_path, monkeypatch):
    import kubernetes_validate

    launched(instance, tmp_path, monkeypatch)
    [job] = api.jobs
    for version in KUBERNETES:
        kubernetes_validate.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    objects = rendered(K8S)
    _, code_pod, code = next(one for one in containers(objects) if one[0] == "code")
    # It sees what the code server sees ...
    env = {one["name"]: one for one in container["env"]}
    assert {one["name"]: one for one in code["env"]}.items() <= env.items()
    assert code["envFrom"] == [one for one in container["envFrom"] if "secretRef" in one]
    assert (container["image"], container["imagePullPolicy"]) == (code["image"], code["imagePullPolicy"])
    assert pod["imagePullSecrets"] == code_pod["imagePullSecrets"]
    places = {one["mountPath"] for one in container["volumeMounts"]}
    assert places == {"/project", "/tmp", "/opt/tsds/dagster/dagster.yaml"}
    claims = [one["persistentVolumeClaim"] for one in pod["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [{"claimName": "tsds-project"}]
    maps = [one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one]
    assert maps == ["tsds-dagster"]
    # ... may do no more, on the nodes that were asked for, and passes the network policy.
    assert pod["securityContext"] == code_pod["securityContext"]
    assert container["securityContext"] == code["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["nodeSelector"] == {"disk": "local"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert container["resources"] == VALUES["runs"]["resources"]
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    [policy] = [one for one in objects if one["metadata"]["name"] == "tsds-inside"]
    allowed = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert allowed.items() <= labels.items()
    assert labels["app.kubernetes.io/component"] not in ("code", "daemon", "web", "postgres")


@pytest.mark.infra
def test_the_launcher_may_do_what_it_does_and_no_more(instance, api, tmp_path, monkeypatch):
    run = launched(instance, tmp_path, monkeypatch)
    launcher = instance.run_launcher
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert launcher.terminate(run.run_id)
    assert {("create", "jobs"), ("get", "jobs/status"), ("delete", "jobs"), ("delete", "pods")} <= set(
        api.asked
    )
    objects = rendered(K8S)
    [role] = [one for one in objects if one["kind"] == "Role"]
    granted = {(verb, name) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}
    assert set(api.asked) <= granted
    # It asks for logs and events of a pod that failed, makes nothing but jobs, and sees no secrets.
    assert {name for verb, name in granted if verb == "create"} == {"jobs", "jobs/status"}
    assert {name for _, name in granted} == {"jobs", "jobs/status", "pods", "pods/log", "events"}
    [binding] = [one for one in objects if one["kind"] == "RoleBinding"]
    [account] = [one for one in objects if one["kind"] == "ServiceAccount"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "ml"}
    ]
    for name, pod, _ in containers(objects):
        given = name != "postgres"
        assert pod["automountServiceAccountToken"] is given
        assert pod.get("serviceAccountName") == (account["metadata"]["name"] if given else None)


@pytest.mark.infra
def test_dagster_ray_takes_its_part(tmp_path):
    from tsds_pipeline.orchestration.ray_launcher import RayJobRunLauncher

    launcher = instance_of(rendered(RAY))["run_launcher"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher}))
    made = InstanceRef.from_dir(str(tmp_path)).run_launcher
    assert isinstance(made, RayJobRunLauncher)
    assert (made.address, made.memory) == ("http://head:8265", 2**33)
