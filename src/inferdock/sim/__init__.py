"""A simulated vLLM replica: the same routes, bodies and metric names, with chosen speeds and injectable faults.

Users run it by ``inferdock sim`` and ``inferdock up --engine sim``; tests run it in process (``sim.testing``). It is
built on aiohttp on purpose: the gateway is tested against an HTTP implementation that is not ours.
``tests/contract/engine`` compares it to recordings of the real engine.
"""
