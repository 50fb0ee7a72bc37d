"""The fake API server keeps the laws of server-side apply, whatever the order of applies and edits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.kube.resources import CONFIG_MAPS
from tests.support.fake_cluster_store import Refused, Store

NS, NAME = "ns", "t"
KEYS, VALUES, MANAGERS = "abc", "12", ("us", "them", "they")
DATA = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
APPLY = st.tuples(st.just("apply"), st.sampled_from(MANAGERS), DATA, st.booleans())
EDIT = st.tuples(
    st.just("edit"),
    st.sampled_from(MANAGERS),
    st.dictionaries(st.sampled_from(KEYS), st.none() | st.sampled_from(VALUES)),
    st.just(False),
)
Owned = dict[tuple[str, str], set[str]]


def data_of(store: Store) -> dict[str, str]:
    return (store.get(CONFIG_MAPS, NS, NAME) or {}).get("data") or {}


def owned(store: Store) -> Owned:
    """Manager and operation to the keys that they own, read from `managedFields` as a client does."""
    found: Owned = {}
    for entry in store.get(CONFIG_MAPS, NS, NAME)["metadata"].get("managedFields", ()):
        keys = {step[2:] for step in entry["fieldsV1"].get("f:data", {}) if step.startswith("f:")}
        found[entry["manager"], entry["operation"]] = keys
    return found


@given(st.lists(st.one_of(APPLY, EDIT), max_size=20))
def test_owners_and_values_agree_with_the_rules(steps):
    store = Store()
    store.create(CONFIG_MAPS, NS, {"metadata": {"name": NAME}}, "maker")
    values: dict[str, str] = {}
    owners: Owned = {}
    for what, manager, data, force in steps:
        version = store.version
        if what == "edit":
            store.patch(CONFIG_MAPS, NS, NAME, {"data": data}, manager)
            _edited(values, owners, manager, data)
        else:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data}
            who = (manager, "Apply")
            clashing = {
                key
                for other, keys in owners.items()
                for key in keys & data.keys()
                if other != who and values.get(key) != data[key]
            }
            if clashing and not force:
                with pytest.raises(Refused) as caught:
                    store.apply(CONFIG_MAPS, NS, NAME, body, (manager, "Apply", ""), force=False)
                assert {cause["field"] for cause in caught.value.causes or ()} == {f".data.{key}" for key in clashing}
                assert store.version == version
            else:
                store.apply(CONFIG_MAPS, NS, NAME, body, (manager, "Apply", ""), force=force)
                _applied(values, owners, who, data, clashing)
        assert data_of(store) == values
        assert {who: keys for who, keys in owned(store).items() if keys} == {w: k for w, k in owners.items() if k}
        assert set(values) == {key for keys in owners.values() for key in keys}


def _edited(values: dict[str, str], owners: Owned, manager: str, data: dict[str, str | None]) -> None:
    for key, value in data.items():
        if value == values.get(key):
            continue
        for keys in owners.values():
            keys.discard(key)
        if value is None:
            del values[key]
        else:
            values[key] = value
            owners.setdefault((manager, "Update"), set()).add(key)


def _applied(values: dict, owners: Owned, who: tuple[str, str], data: dict[str, str], taken: set[str]) -> None:
    for other, keys in owners.items():
        if other != who:
            keys -= {key for key in taken if values[key] != data[key]}
    given_up = owners.get(who, set()) - data.keys()
    owners[who] = set(data)
    for key in given_up:
        if not any(key in keys for keys in owners.values()):
            del values[key]
    values |= data


@given(st.lists(st.one_of(APPLY, EDIT), max_size=8), DATA)
def test_the_same_apply_again_changes_nothing(steps, data):
    store = Store()
    store.create(CONFIG_MAPS, NS, {"metadata": {"name": NAME}}, "maker")
    for what, manager, change, _ in steps:
        body = {"metadata": {"name": NAME}, "data": change}
        if what == "edit":
            store.patch(CONFIG_MAPS, NS, NAME, {"data": change}, manager)
        else:
            store.apply(CONFIG_MAPS, NS, NAME, body, (manager, "Apply", ""), force=True)
    body = {"metadata": {"name": NAME}, "data": data}
    first, _ = store.apply(CONFIG_MAPS, NS, NAME, body, ("us", "Apply", ""), force=True)
    again, new = store.apply(CONFIG_MAPS, NS, NAME, body, ("us", "Apply", ""), force=False)
    assert (again["metadata"]["resourceVersion"], new) == (first["metadata"]["resourceVersion"], False)
