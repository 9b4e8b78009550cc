from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.plan import AggregationPlan, CheckPlan, PartitionPlan, WorkloadPlan
from orchestrator import units
from orchestrator.planning import keys, listing, plan, scenario, targets
from orchestrator.planning.scenario import Group, NodeClass, Scenario
from orchestrator.planning.topology import Topology
from orchestrator.verdict import checks

TOP = Path(__file__).resolve().parents[3]
SMALL = """\
summary: small
fleet: {workers: [{count: 2}]}
workload: {dataset: digits, rounds: 3}
checks: [rounds_completed == 3]
"""
Load = Callable[[str], Scenario]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str) -> Scenario:
        (tmp_path / "mine.yaml").write_text(text)
        return scenario.load(tmp_path / "mine.yaml", "mine.yaml")

    return write_and_load


def complaint(load: Load, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(text)
    return str(caught.value)


def test_the_least_that_a_scenario_says_and_its_defaults(load: Load, tmp_path: Path) -> None:
    assert load(SMALL) == Scenario(
        name="mine",
        file=tmp_path / "mine.yaml",
        summary="small",
        seed=1,
        aggregator=Group(1),
        workers=(Group(2),),
        classes={},
        ipfs="auto",
        topology=Topology("full"),
        transport="prompt",
        workload=WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 3, 1, 32, 0.1),
        task_file=None,
        aggregation=AggregationPlan("mean", "sync", 1.0, 60.0, {}),
        checks=(CheckPlan("rounds_completed == 3", "rounds_completed", "==", 3.0),),
    )


def test_all_that_it_can_say(load: Load) -> None:
    said = load(
        SMALL.replace(
            "{workers: [{count: 2}]}",
            "{aggregator: {class: big, zone: core}, workers: [{count: 3, class: big, zone: eu}]}",
        )
        .replace(
            "dataset: digits, rounds: 3",
            "dataset: mnist, rounds: 3, local_epochs: 0, batch_size: 8, learning_rate: 1e-3, optimizer: adam, server_learning_rate: 0.5, partition: {kind: label, labels_per_node: 2, examples_per_node: 50}",
        )
        .replace("[rounds_completed == 3]", "[rounds_completed: 3, repeatable]")
        + """
seed: 9
ipfs: embedded
faults: []
classes: {big: {cpu: 0.5, memory: 1.5 GiB, ipfs: kubo}}
network: {transport: stock, topology: [[agg, w01], [w02, w01], [w03, w02]]}
aggregation: {strategy: dp, mode: sync, quorum: 60 %, deadline: 2 min, parameters: {noise_multiplier: 0.5, clients_per_round: 3}}
"""
    )
    assert said.classes == {"big": NodeClass(0.5, 3 << 29, "kubo")}
    assert (said.aggregator, said.workers) == (Group(1, "big", "core"), (Group(3, "big", "eu"),))
    assert said.topology == Topology("pairs", pairs=(("agg", "w01"), ("w02", "w01"), ("w03", "w02")))
    assert (said.seed, said.ipfs, said.transport) == (9, "embedded", "stock")
    partition = PartitionPlan("label", labels_per_node=2, examples_per_node=50)
    assert said.workload == WorkloadPlan("mnist", "cnn", partition, 3, 0, 8, 0.001, "adam", 0.5)
    parameters = {"clients_per_round": 3.0, "noise_multiplier": 0.5}
    assert said.aggregation == AggregationPlan("dp", "sync", 0.6, 120.0, parameters)
    assert [check.text for check in said.checks] == ["rounds_completed: 3", "repeatable"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("summary", "sumary", "mine.yaml:1: sumary: unknown key\n  perhaps you meant summary; known: "),
        ("summary: small\n", "", "mine.yaml:1: the key summary is missing"),
        ("summary: small", "summary: [a]", "mine.yaml:1: summary: expected a single value, got a list"),
        ("{count: 2}", "{count: 2, clas: x}", "mine.yaml:2: fleet.workers[0].clas: unknown key\n  perhaps you meant class"),
        ("{count: 2}", "{class: x}", "mine.yaml:2: fleet.workers[0]: the key count is missing"),
        ("{count: 2}", "{count: 2, class: x}", "mine.yaml:2: fleet.workers[0].class: 'x' is not known here\n  there is none yet"),
        ("{count: 2}", "{count: 0}", "mine.yaml:2: fleet.workers[0].count: 0 is out of range"),
        ("{count: 2}", "{count: 1021}", "mine.yaml:2: fleet.workers: 1021 workers are more than there are addresses"),
        ("[{count: 2}]", "[]", "mine.yaml:2: fleet.workers: there is no worker"),
        ("{count: 2}", "{count: 2, zone: third}", "mine.yaml:2: fleet.workers[0].zone: 'third' means something else already"),
        ("{count: 2}", "{count: 2, zone: w07}", "mine.yaml:2: fleet.workers[0].zone: 'w07' means something else already"),
        ("digits", "digit", "mine.yaml:3: workload.dataset: 'digit' is not known here\n  perhaps you meant digits"),
        ("dataset: digits, ", "", "mine.yaml:3: workload: it names no data"),
        ("rounds: 3}", "rounds: many}", "mine.yaml:3: workload.rounds: expected a whole number, got 'many'"),
        ("rounds: 3}", "rounds: 3, partition: {kind: iid, alpha: 1}}", "mine.yaml:3: workload.partition.alpha: this key belongs to kind dirichlet"),
        ("rounds: 3}", "rounds: 3, partition: {kind: dirichlet}}", "mine.yaml:3: workload.partition: the key alpha is missing"),
        ("rounds: 3}", "rounds: 3, file: task.py}", "mine.yaml:3: workload.dataset: the file brings its own"),
        ("dataset: digits", "file: task.py", "mine.yaml:3: workload.file: there is no file "),
        ("dataset: digits", "file: ../task.py", "mine.yaml:3: workload.file: '../task.py' is not a Python file beside"),
        ("[rounds_completed == 3]", "[]", "mine.yaml:4: checks: nothing is expected"),
        ("[rounds_completed == 3]", "[round_completed == 3]", "mine.yaml:4: checks[0]: there is no check 'round_completed'\n  perhaps you meant rounds_completed"),
        ("[rounds_completed == 3]", "[{repeatable: 1, participants: 1}]", "mine.yaml:4: checks[0]: one entry, one check"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_path_and_cure(load: Load, old: str, new: str, said: str) -> None:
    assert old in SMALL
    assert complaint(load, SMALL.replace(old, new)).startswith(said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("seed: -1", "seed: -1 is out of range"),
        ("network: {topology: regular(3)}", "network.topology: regular(3): each of 3 nodes can know 1 to 2 others"),
        ("network: {topology: cirle}", "network.topology: 'cirle' is no topology"),
        ("network: {topology: [[agg, w01]]}", "network.topology: no path leads from agg to w02"),
        ("network: {topology: [[agg, w03]]}", "network.topology: there is no node 'w03' in this fleet"),
        ("network: {topology: [[agg]]}", "network.topology[0]: a pair names two nodes, not 1"),
        ("network: {transport: promt}", "network.transport: 'promt' is not known here"),
        ("faults: [{partition: {}}]", "faults[0]: the key at is missing"),
        ("classes: {a: {memory: 1 Gib}}", "classes.a.memory: '1 Gib': Gib is no unit of a size"),
        ("classes: {a: {memory: 1 kB}}", "classes.a.memory: 1 kB is out of range"),
        ("classes: {a: {cpu: 0}}", "classes.a.cpu: 0 is out of range"),
        ("classes: {a: {memory: [1 GiB]}}", "classes.a.memory: expected a single value, got a list"),
        ("network: {topology: {star: 1}}", "network.topology: expected a single value, got keys with values"),
        ("classes: {all: {cpu: 1}}", "classes.all: 'all' means something else already"),
        ("classes: {A: {cpu: 1}}", "classes.A: 'A' cannot be the name of a class"),
        ("ipfs: go", "ipfs: 'go' is not known here"),
        ("aggregation: {quorum: 1.2}", "aggregation.quorum: 1.2 is out of range"),
        ("aggregation: {deadline: 30}", "aggregation.deadline: '30': a duration needs a unit"),
        ("aggregation: {strategy: krum}", "aggregation.strategy: 'krum' is not known here"),
        ("aggregation: {strategy: dp}", "aggregation: the strategy dp needs the parameter noise_multiplier"),
        ("aggregation: {parameters: {zeroing: 1}}", "aggregation.parameters.zeroing: unknown key"),
    ],
)  # fmt: skip
def test_what_is_wrong_further_down(load: Load, more: str, said: str) -> None:
    assert complaint(load, SMALL + more).startswith(f"mine.yaml:5: {said}")


def test_a_zone_is_no_class(load: Load) -> None:
    text = SMALL.replace("count: 2", "count: 2, zone: a") + "classes: {a: {cpu: 1}}"
    assert "'a' is a class already" in complaint(load, text)


def test_the_users_own_task_is_known_by_its_hash(load: Load, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("raise SystemExit('never run here')")
    said = load(SMALL.replace("dataset: digits", "file: task.py"))
    assert said.task_file == tmp_path / "task.py"
    assert (said.workload.dataset, said.workload.model, said.workload.file) == ("file", "file", "task.py")
    assert said.workload.file_sha256 == hashlib.sha256((tmp_path / "task.py").read_bytes()).hexdigest()


def test_a_file_name_that_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "My scenario.yaml").write_text(SMALL)
    with pytest.raises(UsageError, match="'My scenario' cannot be the name of a scenario"):
        scenario.load(tmp_path / "My scenario.yaml")


def every_key() -> set[str]:
    named = {f"{shape}.{key}".removeprefix(".") for shape, known in keys.KEYS.items() for key in known}
    parameters = {f"aggregation.parameters.{name}" for known in keys.STRATEGIES.values() for name in known}
    return named | parameters


def reference() -> str:
    return (TOP / "scenarios" / "README.md").read_text()


def test_the_reference_explains_every_key_and_no_other() -> None:
    section = reference().partition("## Keys")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == every_key()


def test_the_reference_explains_all_that_is_said_of_links() -> None:
    section = reference().partition("## Links")[2].partition("\n### Profiles")[0]
    assert tuple(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == keys.RULE


def test_the_reference_names_every_check_and_no_other() -> None:
    section = reference().partition("## Checks")[2]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (?:`(.+)` )?\|$", section, re.MULTILINE)
    assert dict(rows) == {name: kind.default or "" for name, kind in checks.KINDS.items()}


@pytest.mark.parametrize(
    "word",
    [
        *keys.DATASETS,
        *keys.MODELS,
        *keys.PARTITIONS,
        *keys.OPTIMIZERS,
        *keys.STRATEGIES,
        *keys.MODES,
        *keys.ENGINES,
        *keys.TRANSPORTS,
        *keys.DELAY_ENGINES,
        *keys.JITTER_KINDS,
        *keys.FAULTS,
        *keys.HOWS,
        *targets.WORDS,
        *units.DURATION.units,
        *units.RATE.units,
        *units.SIZE.units,
        "%",
    ],
)
def test_the_reference_names_every_word(word: str) -> None:
    assert f"`{word}`" in reference()


def test_the_template_shows_every_section_and_is_right(load: Load) -> None:
    assert load(listing.TEMPLATE).worker_names[-1] == "w08"
    for key in ("seed", "fleet", "classes", "network", "ipfs", "workload", "aggregation", "checks"):
        assert f"\n{key}:" in listing.TEMPLATE


def test_every_strategy_has_its_file_and_its_parameters() -> None:
    for name in keys.STRATEGIES:
        assert (TOP / "aggregator" / "strategies" / f"{name}.py").is_file()
    # Read, not imported: that file needs TensorFlow.
    tree = ast.parse((TOP / "node" / "learning" / "combiner.py").read_text())
    tables = [
        ast.literal_eval(one.value)
        for one in tree.body
        if isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == "PARAMETERS" and one.value
    ]
    assert [{name: tuple(known) for name, known in table.items()} for table in tables] == [keys.STRATEGIES]
    must = {name for known in tables[0].values() for name, default in known.items() if default is None}
    assert must == set(keys.MUST_BE_TOLD)


@pytest.mark.parametrize("path", listing.files(), ids=lambda path: path.stem)
def test_every_scenario_of_the_project_is_right(path: Path) -> None:
    assert scenario.load(path).summary.endswith(".")


def test_patient_transport_with_kubo_is_refused_where_a_node_asks_for_it(load: Load) -> None:
    patient = SMALL + "network: {transport: patient}\n"
    assert load(patient).transport == "patient"
    assert load(patient + "classes: {idle: {ipfs: kubo}}\n").transport == "patient"
    said = "mine.yaml:5: network.transport: Kubo cannot do transport patient"
    assert complaint(load, patient + "ipfs: kubo\n").startswith(said)
    own = patient.replace("count: 2", "count: 2, class: own") + "classes: {own: {ipfs: kubo}}\n"
    assert complaint(load, own).startswith(said)


BARE = re.sub(r"(?m)^#.*\n|\s+#.*", "", listing.TEMPLATE)
SPOTS = [match.span() for match in re.finditer(r"(?<=: )[^{}\[\],\n]+|(?<=- ).+|\w+(?=:)", BARE)]
STRANGE = [
    "0",
    "-1",
    "1e30",
    ".nan",
    "9" * 25,
    "null",
    "[]",
    "{}",
    "x",
    '"80 ms"',
    "[[a, b]]",
    "{a: b}",
    "é",
    "%",
]


@given(st.sampled_from(SPOTS), st.sampled_from(STRANGE) | st.text(max_size=12))
def test_whatever_stands_in_a_place_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, spot: tuple[int, int], value: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_text(BARE[: spot[0]] + value + BARE[spot[1] :])
    complaint = "changed.yaml:"
    try:
        plan.make_plan(scenario.load(path, "changed.yaml"))
    except UsageError as error:
        complaint = error.message
    assert complaint.startswith("changed.yaml:")
    assert complaint.count("changed.yaml:") == 1


def test_a_check_about_nobody_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "nobody.yaml"
    path.write_text(listing.TEMPLATE + "  - fetch_rate(w99) <= 2 Mbit\n")
    with pytest.raises(UsageError, match=r"nobody\.yaml:\d+: checks.*no worker is called 'w99'"):
        scenario.load(path)
