"""Runs small networks in SimGrid: JSON in, the times at which jobs end out.

Input: {"kind": "shared" | "servers" | "links", "capacity": servers,
"links": [bytes a second], "jobs": [[arrival in ns, need in ns or bytes, [links]]]}
"""

import json
import sys

from simgrid import Actor, Engine, Host, LinkInRoute, Mailbox, NetZone, Semaphore, this_actor

case = json.load(sys.stdin)
ends = [0.0] * len(case["jobs"])
engine = Engine([
    "simgrid", "--log=root.thresh:critical", "--cfg=network/model:CM02", "--cfg=network/TCP-gamma:0",
    "--cfg=network/weight-S:0", "--cfg=network/crosstraffic:0", "--cfg=network/bandwidth-factor:1", "--cfg=surf/precision:1e-12", "--cfg=maxmin/precision:1e-12",
])
zone = NetZone.create_full_zone("zone")


def compute(number, arrival, need, semaphore):
    this_actor.sleep_until(arrival / 1e9)
    if semaphore:
        semaphore.acquire()
    this_actor.execute(need)
    if semaphore:
        semaphore.release()
    ends[number] = Engine.clock * 1e9


def send(number, arrival, need):
    this_actor.sleep_until(arrival / 1e9)
    Mailbox.by_name(str(number)).put("x", int(need))
    ends[number] = Engine.clock * 1e9


def receive(number):
    Mailbox.by_name(str(number)).get()


if case["kind"] == "links":
    links = [zone.create_link(f"link{i}", rate).set_latency(0).seal() for i, rate in enumerate(case["links"])]
    for i, (arrival, need, route) in enumerate(case["jobs"]):
        a, b = zone.create_host(f"a{i}", 1e9).seal(), zone.create_host(f"b{i}", 1e9).seal()
        zone.add_route(a.netpoint, b.netpoint, None, None, [LinkInRoute(links[l]) for l in route], True)
    zone.seal()
    for i, (arrival, need, route) in enumerate(case["jobs"]):
        Actor.create(f"send{i}", Host.by_name(f"a{i}"), send, i, arrival, need)
        Actor.create(f"receive{i}", Host.by_name(f"b{i}"), receive, i)
else:
    # 1 flop is 1 ns.
    host = zone.create_host("host", 1e9)
    host.core_count = case["capacity"]
    host.seal()
    zone.seal()
    semaphore = Semaphore(case["capacity"]) if case["kind"] == "servers" else None
    for i, (arrival, need, _) in enumerate(case["jobs"]):
        Actor.create(f"job{i}", host, compute, i, arrival, need, semaphore)
engine.run()
print(json.dumps(ends))
