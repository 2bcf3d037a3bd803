"""The shipped dashboard: descriptions, data sources, layout."""

from itertools import combinations

from rig.dashboard import dashboard, panels

ENERGY_UNITS = {"joule", "watt"}


def test_every_panel_has_a_description() -> None:
    for panel in panels():
        title = panel["title"]
        assert panel["description"], title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert all(target["legendFormat"] for target in panel["targets"]), title


def test_every_panel_uses_the_selected_data_source() -> None:
    for panel in panels():
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source["uid"] == "${datasource}" for source in sources), panel["title"]


def test_local_and_cloud_energy_are_never_added_up() -> None:
    """A sum over requests keeps `quality` apart, so an assumed joule cannot hide among measured ones."""
    for panel in panels():
        if panel["fieldConfig"]["defaults"]["unit"] not in ENERGY_UNITS:
            continue
        for target in panel["targets"]:
            if "wattgate_request_energy" in target["expr"]:
                assert "quality" in target["expr"] and "{{quality}}" in target["legendFormat"], panel["title"]


def test_panels_neither_overlap_nor_share_an_id() -> None:
    all_panels = dashboard()["panels"]
    assert len({panel["id"] for panel in all_panels}) == len(all_panels)
    for one, other in combinations((panel["gridPos"] for panel in all_panels), 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in all_panels)
