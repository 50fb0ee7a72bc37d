"""Laws of leasing: counts never go below zero, and only ready endpoints are chosen."""

from hypothesis import given
from hypothesis import strategies as st

from inferdock.balance.endpoints import EndpointSet, Lease, State
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.domain.endpoint import EndpointSpec

NAMES = ["a", "b", "c", "d"]
steps = st.lists(
    st.one_of(
        st.just(("lease",)),
        st.tuples(st.just("release"), st.integers(0, 50)),
        st.tuples(st.just("state"), st.integers(0, 3), st.sampled_from([State.READY, State.UNREADY])),
        st.tuples(st.just("replace"), st.sets(st.sampled_from(NAMES))),
    ),
    max_size=60,
)


@given(steps)
def test_no_history_chooses_an_unready_endpoint_or_loses_a_count(history):
    endpoints = EndpointSet(LeastOutstanding())
    leases: list[Lease] = []
    everyone = set()
    for step in history:
        present = list(endpoints)
        if step[0] == "lease":
            lease = endpoints.lease("m")
            assert (lease is None) == (not any(e.state is State.READY for e in present))
            if lease is not None:
                assert lease.endpoint.state is State.READY
                least = min(e.outstanding for e in present if e.state is State.READY)
                assert lease.endpoint.outstanding - 1 <= least
                leases.append(lease)
        elif step[0] == "release" and leases:
            leases[step[1] % len(leases)].release()
        elif step[0] == "state" and present:
            present[step[1] % len(present)].state = step[2]
        elif step[0] == "replace":
            endpoints.replace([EndpointSpec(n, "h", 1, "m", "r") for n in sorted(step[1])])
        everyone.update(endpoints)
        assert all(endpoint.in_flight >= 0 for endpoint in everyone)
    for lease in leases:
        lease.release()
    assert all(endpoint.in_flight == 0 for endpoint in everyone)
