"""Secrets of the environment, of addresses and of settings reach no file of the workspace, no log and no registry."""

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.metrics.efficientnet_lite0 import PACKAGE
from stages.packages import fetch
from tests.conftest import PICTURES, tiny_params
from tests.lifecycle.canaries import CANARIES, ENVIRONMENT, QUERY, USERINFO, forms, leaking_files, leaks
from tests.lifecycle.project import RUN_SECONDS, environment, make_project, set_params
from tests.stages.archive_files import as_zip
from tests.stages.https_server import Server, https_server

DEAD_MLFLOW = f"http://{USERINFO}:{USERINFO}@127.0.0.1:1/?token={QUERY}"
pytestmark = pytest.mark.timeout(RUN_SECONDS * 3)


@dataclass
class Front:
    """The front doors of one project, in an environment full of secrets; all that they print is kept."""

    project: Path
    server: Server
    variables: dict[str, str]
    printed: list[str]

    def __call__(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        line, env = [sys.executable, "-m", name, *arguments], self.variables | variables
        done = subprocess.run(line, cwd=self.project, env=env, capture_output=True, text=True, timeout=RUN_SECONDS)
        self.printed.append(f"$ {name} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done

    def select(self, path: str, **settings: Any) -> None:
        """Make an address of the server the source: a secret as user, one in the query."""
        host = self.server.address.removeprefix("https://")
        url = f"https://${{TOKEN}}@{host}/{path}?token={QUERY}"
        archive = {"url": url, "sha256": None, "bytes": None, "licence": "CC0-1.0"}
        set_params(self.project, **{"data.source": "archive", "data.archive": archive, **settings})


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    project = make_project(tmp_path_factory.mktemp("secrets") / "project", tiny_params())
    outside = tmp_path_factory.mktemp("outside")
    weights = fetch(PACKAGE)
    kept = outside / "cache" / weights.parent.name
    kept.mkdir(parents=True)
    shutil.copy(weights, kept)
    with https_server(outside) as (server, trusted):
        files = {path.relative_to(PICTURES).as_posix(): path.read_bytes() for path in sorted(PICTURES.glob("*/*"))}
        server.put("pictures.zip", as_zip(files))
        places = {"SSL_CERT_FILE": str(trusted), "IMAGE_FOUNDRY_CACHE": str(outside / "cache")}
        yield Front(project, server, environment(project, **places) | ENVIRONMENT, [])


def everything(front: Front) -> dict[str, list[str]]:
    """Return every file of the workspace, of Prefect and of the user's cache that holds a secret, but params.yaml."""
    found = leaking_files(front.project.parent, Path(front.variables["IMAGE_FOUNDRY_CACHE"]))
    return {name: held for name, held in found.items() if name != (front.project / "params.yaml").as_posix()}


def test_search_finds_a_secret_in_each_form(tmp_path: Path) -> None:
    for number, secret in enumerate(CANARIES):
        for shift in range(3):
            (tmp_path / f"{number}-{shift}").write_bytes(base64.b64encode(b"x" * shift + secret.encode() + b"tail"))
        for form, data in enumerate(forms(secret)):
            (tmp_path / f"{number}-form-{form}").write_bytes(b"before " + data + b" after")
    files = {path.as_posix() for path in tmp_path.iterdir()}
    assert set(leaking_files(tmp_path)) == files
    assert len(files) >= 6 * len(CANARIES)


def test_runs_leave_no_secret(front: Front) -> None:
    front.select("pictures.zip")
    dead = front("pipelines.run", MLFLOW_TRACKING_URI=DEAD_MLFLOW)
    assert dead.returncode == 0, dead.stdout + dead.stderr
    assert "not published, MLflow at http://127.0.0.1:1/" in dead.stdout
    set_params(front.project, **{"evaluate.batch": 16})
    flow = front("pipelines.flows", "lifecycle")
    assert flow.returncode == 0, flow.stdout + flow.stderr
    assert (front.project / "mlflow.db").exists()
    assert list((front.project / "mlartifacts").rglob("model.onnx"))
    assert front("pipelines.release", "dcgan").returncode == 0
    assert list((front.project / "releases").rglob("release.json"))
    assert front.server.requests[-1][1] == f"/pictures.zip?token={QUERY}"  # the secrets did reach the server
    assert everything(front) == {}
    assert leaks("\n".join(front.printed).encode()) == []


@pytest.mark.slow
def test_failures_tell_no_secret(front: Front) -> None:
    """A failing stage, a refusal, a redirect that repeats what it was asked, and settings that are wrong."""
    front.server.put("moved.zip", b"", moved_to=f"http://127.0.0.1/{ENVIRONMENT['PATH_TOKEN']}/x.zip?token={QUERY}")
    front.server.put("broken.zip", b"no archive")
    front.select("pictures.zip", **{"export.tolerance": 1e-12})
    for door in (["pipelines.run"], ["pipelines.flows", "lifecycle"]):
        assert front(*door).returncode == 3
    for path in ("moved.zip", "broken.zip", "absent/${PATH_TOKEN}/x.zip"):
        front.select(path)
        for door in (["pipelines.run"], ["pipelines.refresh"]):
            assert front(*door).returncode == 2
    assert front("pipelines.flows", "lifecycle").returncode == 2
    for wrong in wrong_settings():
        text = (front.project / "params.yaml").read_text()
        (front.project / "params.yaml").write_text(wrong(text))
        assert front("pipelines.run").returncode == 2
        (front.project / "params.yaml").write_text(text)
    assert "Traceback" not in "\n".join(front.printed)
    assert leaks("\n".join(front.printed).encode()) == []
    assert everything(front) == {}


def wrong_settings() -> list[Any]:
    """Return edits of params.yaml that make an address with a secret wrong in several ways."""
    address = f"https://user:{USERINFO}@localhost/x.zip?token={QUERY}"

    def edited(change) -> Any:
        def edit(text: str) -> str:
            params = yaml.safe_load(text)
            change(params)
            return yaml.safe_dump(params, sort_keys=False)

        return edit

    return [
        edited(lambda params: params["data"]["archive"].update(url=address)),  # a password that is written out
        edited(lambda params: params["data"]["archive"].update(url=[address])),
        edited(lambda params: params["data"].update(archive=address)),
        edited(lambda params: params["data"].update(source=address)),
        edited(lambda params: params["data"]["archive"].update(url=address.replace("https", "ftp"))),
        edited(lambda params: params["data"]["archive"].update(url=address.replace("localhost", "[::1"))),
        edited(lambda params: params.update({address: 1})),
        lambda text: f"{text}\nextra: {address}: 1\n",
        lambda text: f"{text}\nextra: [{address}\n",
    ]


def test_back_up_leaves_no_secret_but_in_params(front: Front, tmp_path: Path) -> None:
    done = front("pipelines.backup", "create", str(tmp_path / "backup"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    found = leaking_files(tmp_path)
    params = (front.project / "params.yaml").read_bytes()
    assert {Path(name).read_bytes() for name in found} <= {params}
