"""What an agent sees of its machine, from files as the kernels of real devices have them."""

import platform
import sys
from pathlib import Path

import onnxruntime
import pytest

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model, variant_of
from whimbrel import Agent, AgentOptions
from whimbrel.agent import labels
from whimbrel.agent.labels import architecture, cpu_name, hardware_name, labels_of, labels_to_tell, look, seen_labels
from whimbrel.health.report import Batch
from whimbrel.model.documents import convert, digest_of
from whimbrel.model.ids import dotted_key
from whimbrel.model.selector import Expression, Selector
from whimbrel.policy.policy import Policy


def files(root: Path, **contents: str) -> Path:
    """A folder with these files; `__` in a name is `/`."""
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_device_sees_its_system_its_machine_and_its_runtimes() -> None:
    seen = seen_labels()
    assert seen["os"] == {"linux": "linux", "darwin": "macos", "win32": "windows"}[sys.platform]
    assert seen["arch"] == architecture(platform.machine(), is_32_bit=False)
    assert dotted_key(seen["os_version"])
    assert int(seen["ram_mb"]) > 100
    assert seen["runtime.onnxruntime"] == onnxruntime.__version__
    assert dotted_key(seen["runtime.ai_edge_litert"])
    assert "runtime.llama_cpp" not in seen


def test_what_is_seen_may_travel() -> None:
    convert(Batch, {"epoch": "e" * 32, "windows": [], "labels": seen_labels()}, what="labels")


@pytest.mark.parametrize(("version", "serial"), [("1.17.3", 1), ("1.18.0", 2), ("1.31.1", 2)])
def test_a_device_whose_runtime_is_too_old_fetches_nothing(tmp_path: Path, version: str, serial: int) -> None:
    """It fetched the whole model, failed its probe, and refused the version for ever."""
    one, two = onnx_model(factor=2.0), onnx_model(factor=3.0)
    too_old = Expression(key="runtime.onnxruntime", operator="NotVersion", values=("<1.18",))
    repository = Repository()
    repository.release("detector", 1, one)
    repository.blob(two)
    newer = variant_of(two, selector=Selector(match_expressions=(too_old,)))
    repository.release("detector", 2, variants=(newer,))
    repository.policy("detector", baseline=2, known_good=(1,))
    with (
        Server(repository) as server,
        Agent.open(
            tmp_path,
            AgentOptions(
                server=server.url,
                root=repository.root_bytes,
                labels={"runtime.onnxruntime": version},
                probes=AllGood(),
                models=["detector"],
            ),
        ) as agent,
    ):
        for _ in range(3):
            agent.cycle(force=True)
        assert agent.status()["models"]["detector"]["serial"] == serial
        assert agent.status()["labels"]["runtime.onnxruntime"] == version
        assert any(digest_of(two) in line for line in server.asked) == (serial == 2)


def test_the_labels_of_the_app_win() -> None:
    both = labels_of({"os": "my-linux", "region": "NZ"})
    assert (both["os"], both["region"]) == ("my-linux", "NZ")
    assert both["arch"] == seen_labels()["arch"]


def test_only_labels_that_a_policy_names_are_told() -> None:
    policies = [Policy(model=name, sequence=1, report_labels=(name, "os")) for name in ("a", "b")]
    device = {"a": "1", "b": "2", "c": "3", "os": "linux"}
    assert labels_to_tell(device, policies) == {"a": "1", "b": "2", "os": "linux"}
    assert labels_to_tell(device, []) == {}


@pytest.mark.parametrize(
    ("machine", "is_32_bit", "arch"),
    [
        ("x86_64", False, "x86_64"),
        ("AMD64", False, "x86_64"),
        ("aarch64", False, "arm64"),
        ("arm64", False, "arm64"),
        ("armv7l", True, "armv7l"),
        ("aarch64", True, "armv7l"),  # Raspberry Pi OS of 32 bits has a kernel of 64
        ("riscv64", False, "riscv64"),
    ],
)
def test_the_architecture_is_that_of_this_process(machine: str, is_32_bit: bool, arch: str) -> None:
    assert architecture(machine, is_32_bit=is_32_bit) == arch


def test_a_board_is_named_without_its_revision(tmp_path: Path) -> None:
    root = files(tmp_path, **{"proc__device-tree__model": "Raspberry Pi 4 Model B Rev 1.1\0"})
    assert hardware_name(root) == "Raspberry Pi 4 Model B"


@pytest.mark.parametrize(
    ("vendor", "product", "name"),
    [
        ("LENOVO\n", "20XW0026GE\n", "LENOVO 20XW0026GE"),
        ("Dell Inc.\n", "Dell Inc. Edge 3000\n", "Dell Inc. Edge 3000"),
        ("System manufacturer\n", "NUC11\n", "NUC11"),
        ("Default string\n", "To Be Filled By O.E.M.\n", ""),
        ("", "", ""),
    ],
)
def test_a_machine_is_named_by_its_vendor(tmp_path: Path, vendor: str, product: str, name: str) -> None:
    root = files(tmp_path, sys__class__dmi__id__sys_vendor=vendor, sys__class__dmi__id__product_name=product)
    assert hardware_name(root) == name


def test_serial_numbers_are_not_looked_at(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        **{
            "proc__cpuinfo": "processor\t: 0\nSerial\t\t: 10000000deadbeef\n",
            "proc__device-tree__serial-number": "10000000deadbeef\0",
            "sys__class__dmi__id__product_serial": "deadbeef\n",
            "sys__class__dmi__id__product_uuid": "deadbeef\n",
        },
    )
    assert "deadbeef" not in str(look(root))


def test_the_processor_is_named_by_the_kernel_or_the_device_tree(tmp_path: Path) -> None:
    assert cpu_name(files(tmp_path / "pc", proc__cpuinfo="processor\t: 0\nmodel name\t: AMD EPYC\n")) == "AMD EPYC"
    board = {"proc__cpuinfo": "processor\t: 0\nCPU part\t: 0xd08\n"}
    tree = {"proc__device-tree__cpus__cpu@0__compatible": "arm,cortex-a72\0"}
    assert cpu_name(files(tmp_path / "board", **board, **tree)) == "cortex-a72"
    assert cpu_name(files(tmp_path / "other", **board)) == ""


def test_what_cannot_be_seen_has_no_label(tmp_path: Path) -> None:
    assert {"cpu", "hardware"}.isdisjoint(look(tmp_path))


def test_odd_names_become_values_that_may_travel(tmp_path: Path) -> None:
    root = files(tmp_path, **{"proc__device-tree__model": "A\x07 board\n\twith " + "x" * 500})
    seen = look(root)["hardware"]
    assert seen.startswith("A board with xx")
    convert(Batch, {"epoch": "e" * 32, "windows": [], "labels": {"hardware": seen}}, what="labels")


def test_versions_are_cut_to_their_dotted_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(labels.sys, "platform", "linux")
    monkeypatch.setattr(labels.platform, "release", lambda: "6.6.31+rpt-rpi-v8")
    monkeypatch.setattr(labels, "version", lambda _: "1.20.0.dev20240501001")
    seen = look(tmp_path)
    assert (seen["os_version"], seen["runtime.onnxruntime"]) == ("6.6.31", "1.20.0")
