"""docs/kubernetes.md names what there is."""

import re

import yaml

from tests.deploy.helm import CHART, EVERYTHING, EXAMPLES, ROOT, render

_PAGE = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")


def test_the_page_has_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    table = _PAGE.partition("## Values\n")[2].partition("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?`) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert values.keys() <= named


def test_the_page_has_every_alert_and_no_other() -> None:
    (rules,) = render(values=EVERYTHING).of_kind("PrometheusRule")
    alerts = [each["alert"] for each in rules["spec"]["groups"][0]["rules"]]
    assert re.findall(r"^\| `(EfficientSAM3\w+)` \|", _PAGE, re.M) == alerts


def test_the_page_has_every_example() -> None:
    assert re.findall(r"^\| \[([\w-]+)\.yaml\]", _PAGE, re.M) == [example.stem for example in EXAMPLES]
