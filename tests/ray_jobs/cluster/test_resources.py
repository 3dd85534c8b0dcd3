"""Which pools of worker groups are started on which nodes."""

from __future__ import annotations

from ray_jobs.cluster.resources import GroupPlan, Node, Pool, Resources

ON_CPU = Resources(1, {"CPU": 2.0}, use_gpu=False)
ON_GPU = Resources(1, {"CPU": 2.0, "GPU": 1.0}, use_gpu=True)
OF_TWO = Resources(2, {"CPU": 2.0}, use_gpu=False)


def node(key: str, cpus: float, free: float | None = None, gpus: float = 0.0) -> Node:
    resources = {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})
    return Node(key, resources, resources | {"CPU": cpus if free is None else free})


def started(
    plan: GroupPlan,
    nodes: list[Node],
    wanted: int,
    running: list[Pool] | None = None,
    starting: list[Pool] | None = None,
) -> list[tuple[str | None, int, bool]]:
    """Node, number of groups and use of a GPU of each pool that is started."""
    pools = plan.missing(nodes, running or [], starting or [], wanted)
    return [(pool.node, pool.num_groups, pool.resources.use_gpu) for pool in pools]


def test_a_node_has_one_pool_of_all_groups_that_fit_it() -> None:
    nodes = [node("head", 0), node("a", 8), node("b", 5), node("c", 1)]
    assert started(GroupPlan(ON_CPU), nodes, 100) == [("a", 4, False), ("b", 2, False)]
    assert started(GroupPlan(ON_CPU), nodes, 5) == [("a", 4, False), ("b", 1, False)]
    assert started(GroupPlan(ON_CPU), nodes, 0) == []


def test_pools_that_are_there_count_also_before_they_have_workers() -> None:
    plan = GroupPlan(ON_CPU)
    of_a = Pool(ON_CPU, 3, "a")
    # Its workers have reserved what is not free; before, nothing is reserved.
    assert started(plan, [node("a", 8, free=2)], 100, running=[of_a]) == [("a", 1, False)]
    assert started(plan, [node("a", 8, free=8)], 100, starting=[of_a]) == [("a", 1, False)]
    # What is free is known late.
    assert started(plan, [node("a", 8, free=8)], 100, running=[of_a]) == [("a", 1, False)]
    assert started(plan, [node("a", 8), node("b", 8)], 5, running=[of_a]) == [
        ("a", 1, False),
        ("b", 1, False),
    ]


def test_what_other_programs_have_reserved_is_left_alone() -> None:
    nodes = [node("a", 8, free=3), node("b", 8, free=1), node("c", 8, free=0)]
    assert started(GroupPlan(ON_CPU), nodes, 100) == [("a", 1, False)]


def test_groups_on_cpus_take_what_those_on_gpus_leave() -> None:
    plan = GroupPlan(ON_GPU, on_the_rest=ON_CPU)
    nodes = [node("a", 8, gpus=2), node("b", 4)]
    everything = [("a", 2, True), ("a", 2, False), ("b", 2, False)]
    assert started(plan, nodes, 100) == everything
    assert started(plan, nodes, 3) == [*everything[:1], ("a", 1, False)]
    assert started(GroupPlan(ON_GPU), nodes, 100) == everything[:1]
    # A GPU that is added is used, although groups on CPUs are enough.
    there = [Pool(ON_CPU, 2, "b")]
    assert started(plan, nodes, 2, running=there) == everything[:1]
    assert started(plan, nodes[1:], 2, running=there) == []


def test_a_group_of_several_workers_has_a_trainer_of_its_own_and_any_nodes() -> None:
    plan = GroupPlan(OF_TWO)
    nodes = [node("a", 6), node("b", 6)]  # 3 workers each
    assert started(plan, nodes, 100) == [(None, 1, False)] * 3
    assert started(plan, nodes, 2) == [(None, 1, False)] * 2
    assert started(plan, nodes, 100, running=[Pool(OF_TWO)] * 2) == [(None, 1, False)]


def test_a_node_has_no_more_workers_than_its_memory_holds() -> None:
    gib = float(1 << 30)
    of_half = Resources(1, {"CPU": 1.0, "memory": gib / 2}, use_gpu=False)
    resources = {"CPU": 8.0, "memory": 1.75 * gib}
    nodes = [Node("a", resources, resources)]
    assert started(GroupPlan(of_half), nodes, 100) == [("a", 3, False)]
    assert of_half.of_a_worker == "1 CPU and 0.5 GiB of memory"
