"""What is published or told of an address holds no password and no token."""

import pytest
import yaml

from pipelines.publish import without_secrets


def test_address_in_the_log_has_no_password() -> None:
    line = "https://me:secret@example.org/mlflow?key=secret does not answer"
    assert without_secrets(line) == "https://example.org/mlflow does not answer"
    assert without_secrets("postgresql://u:p@ss@db/x and http://h/@x") == "postgresql://db/x and http://h/@x"


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("https://host/p.zip?token=SECRET", "https://host/p.zip"),
        ("https://host/p.zip", "https://host/p.zip"),
        (None, None),
    ],
)
def test_a_token_in_the_archives_address_is_not_published(tmp_path, url, left):
    from pipelines.tracking import params_without_secrets

    path = tmp_path / "params.yaml"
    path.write_text("# settings\n" + yaml.safe_dump({"data": {"source": "archive", "archive": {"url": url}}}))
    published = params_without_secrets(path)
    assert "SECRET" not in published
    assert yaml.safe_load(published)["data"]["archive"]["url"] == left
    assert published.startswith("#") == (url == left)
