"""What the gateway counts for the cost model: tokens by tenant, and time of replicas by state."""

from inferdock.balance.endpoints import EndpointSet, State
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.domain.endpoint import EndpointSpec
from inferdock.gateway.metrics import MAX_TENANTS, OTHERS, GatewayMetrics


def metrics(endpoints: EndpointSet) -> GatewayMetrics:
    return GatewayMetrics(endpoints, connections=lambda: 0, draining=lambda: False)


def endpoint_set() -> EndpointSet:
    endpoints = EndpointSet(LeastOutstanding())
    endpoints.replace([EndpointSpec("replica-0", "127.0.0.1", 1, "m", "r1")])
    return endpoints


def seconds(counted: GatewayMetrics) -> dict[str, float]:
    return {labels[2]: values[0] for labels, values in counted.replica_seconds.samples()}


def test_tokens_of_tenants_are_counted_apart_from_what_the_cache_spared():
    counted = metrics(endpoint_set())
    cells = counted.cells("m", "r1")
    for tenant, spared, tokens in (("red", False, 5), ("red", True, 7), ("", False, 1)):
        prompt, output = cells.of_tenant(tenant, spared)
        prompt.value += tokens
        output.value += 2 * tokens
    found = {labels[2:]: values[0] for labels, values in counted.tenant_tokens.samples()}
    assert found["red", "prompt"] == 5
    assert found["red", "spared_output"] == 14
    assert found["", "output"] == 2


def test_a_thousand_tenants_do_not_make_a_thousand_series():
    counted = metrics(endpoint_set())
    cells = counted.cells("m", "r1")
    for number in range(3 * MAX_TENANTS):
        for spared in (False, True):
            prompt, _ = cells.of_tenant(f"tenant-{number}", spared)
            prompt.value += 1
    samples = {labels[2:]: values[0] for labels, values in counted.tenant_tokens.samples()}
    assert len({tenant for tenant, _ in samples}) == MAX_TENANTS + 1
    assert samples[OTHERS, "prompt"] == 2 * MAX_TENANTS


def test_cached_tokens_of_a_thousand_tenants_do_not_make_a_thousand_series_either():
    counted = metrics(endpoint_set())
    for number in range(3 * MAX_TENANTS):
        counted.cells("m", "r1").cached_of_tenant(f"tenant-{number}").value += 1
    samples = {labels[2]: values[0] for labels, values in counted.tenant_cached.samples()}
    assert len(samples) == MAX_TENANTS + 1
    assert samples[OTHERS] == 2 * MAX_TENANTS


def test_time_goes_to_the_state_that_a_replica_is_in():
    endpoints = endpoint_set()
    counted = metrics(endpoints)
    (endpoint,) = endpoints
    counted.tick(10.0)
    counted.tick(11.0)
    endpoint.state = State.READY
    counted.tick(13.0)
    lease = endpoints.lease("m")
    counted.tick(17.0)
    lease.release()
    counted.tick(18.0)
    assert seconds(counted) == {"unready": 1.0, "idle": 3.0, "busy": 4.0}


def test_a_clock_that_goes_back_takes_nothing_away():
    endpoints = endpoint_set()
    counted = metrics(endpoints)
    for now in (10.0, 11.0, 5.0, 6.0):
        counted.tick(now)
    assert seconds(counted) == {"unready": 2.0}
