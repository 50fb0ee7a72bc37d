"""The response cache on the path of a request: who may use it, who waits for whom, how an answer is given again.

::

    Pipeline -> Door -> memory hit ------------------------------------> Rider.replay -> client
                  |                                                        ^
                  '-> Flight -> look-up (Redis, semantic tier) -- hit -----'
                        |  ^
                        |  '-- further clients with the same question join as Riders
                        '-> Exchange -> replica -> Broadcast -> every Rider; whole answers are stored

What the cache is, keeps and compares lives in :mod:`inferdock.cache`.
"""
