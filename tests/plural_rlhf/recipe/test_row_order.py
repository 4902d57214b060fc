"""A whole run on a table whose rows and columns are in another order: the same results to the last digit."""

import pytest
import yaml

from plural_rlhf import load_config
from plural_rlhf.recipe import run


@pytest.mark.slow
def test_the_results_of_a_run_do_not_depend_on_the_order_of_rows(real_run, tmp_path):
    """Split, jury, training of the policies, intervals: all of `results.json` but times and paths."""
    settings = yaml.safe_load(real_run.run_file.read_text(encoding="utf-8"))
    settings["output_dir"] = str(tmp_path / "run")
    settings["data"]["path"] = str(tmp_path / "answers.csv")
    table = real_run.answers.sample(frac=1, random_state=3)
    table[table.columns[::-1]].to_csv(tmp_path / "answers.csv", index=False)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    before, after = published(real_run.results), published(run(load_config(tmp_path / "run.yaml")))
    assert table["person"].iloc[0] != real_run.answers["person"].iloc[0]
    assert after == before


def published(results):
    """What `results.json` holds, without times and paths."""
    known = results.to_dict()
    del known["meta"], known["config"], known["data"]["source"]
    for budget in known["budgets"].values():
        del budget["seconds"]
    for history in known["training"].values():
        for step in history:
            step.pop("step_time", None)
    for row in known["rows"]:
        del row["case"]  # the path of the table
    return known
