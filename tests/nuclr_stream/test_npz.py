"""Arrays of a bundle: damage, lies and bombs are one BundleError each, before memory is taken for them."""

from __future__ import annotations

import io
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.bundle import manifest as bundle_module
from nuclr_stream.bundle.arrays import MAX_ARRAYS, plain_arrays
from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.errors import BundleError
from nuclr_stream.inference.model import Model, check_bundle
from tests.conftest import replace_file

MEMBERS = {
    "whole": np.arange(12, dtype=np.float32).reshape(3, 4),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "mask": np.array([True, False]),
    "one": np.array(2.5),
    "nothing": np.zeros((0, 7), dtype=np.int64),
}


def npz(compressed: bool = True, **arrays: np.ndarray) -> bytes:
    """A .npz as numpy writes it."""
    made = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(made, allow_pickle=False, **arrays)
    return made.getvalue()


def zipped(**members: bytes) -> bytes:
    """A zip archive of members with this content."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return made.getvalue()


def npy(header: str, content: bytes = b"", *, version: int = 1) -> bytes:
    """A .npy file with a header of our own."""
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + content


def described(kind: str, shape: str, content: bytes = b"", **other: int) -> bytes:
    return npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}", content, **other)


def read(content: bytes, *, most_bytes: int = 10_000) -> dict[str, np.ndarray]:
    return plain_arrays(content, "file.npz", most_bytes=most_bytes)


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_those_that_numpy_reads(compressed: bool):
    content = npz(compressed, **MEMBERS)
    with np.load(io.BytesIO(content)) as expected:
        found = read(content)
        assert list(found) == expected.files
        for name, values in found.items():
            assert values.dtype == expected[name].dtype and np.array_equal(values, expected[name])
            assert values.flags.writeable


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (described("<f4", "(10000000000000,)"), r"a\.npy: announces float32 \(10000000000000,\), holds 0 bytes"),
        (described("<f4", "(2,)", bytes(7)), "announces float32"),
        (described("<f4", "(2,)", bytes(9)), "announces float32"),
        (described("<f4", "(-1, 4)", bytes(16)), "announces float32"),
        (described("<f4", "(-1, -2)", bytes(8)), "announces float32"),
        (described("<f4", "(0, -1)"), "announces float32"),
        (described("|O", "(1,)", bytes(8)), "type object, not plain numbers"),
        (described("<U4", "(1,)", bytes(16)), "type <U4, not plain numbers"),
        (described("<U0", "(10000000000000,)"), "not plain numbers"),
        (described("<c8", "(1,)", bytes(8)), "type complex64, not plain numbers"),
        (described("<f4", "(1,)", bytes(4), version=3), r"\.npy version \(3, 0\)"),
        (described("nothing", "(1,)"), "not a readable"),
        (described("<f4", "'many'"), "not a readable"),
        (npy("{'descr': "), "not a readable"),
        (npy("("), "not a readable"),
        (npy("(" * 5_000), "not a readable"),
        (npy("[1, 2]"), "not a readable"),
        (npy("x" * 60_000), "not a readable"),
        (b"", "not a readable"),
        (b"\x93NUMPY", "not a readable"),
        (b"no array at all", "not a readable"),
    ],
)
def test_a_member_that_is_no_plain_array_of_its_size_is_refused(member: bytes, says: str):
    with pytest.raises(BundleError, match=says) as refused:
        read(zipped(a=member), most_bytes=10**6)
    assert str(refused.value).startswith("file.npz: not a readable .npz of plain arrays (")


def test_nothing_is_allocated_for_what_is_only_announced():
    bomb = zipped(a=described("<f8", "(100000000,)"))
    tracemalloc.start()
    with pytest.raises(BundleError):
        read(bomb, most_bytes=10**9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


def test_a_bomb_is_refused_by_its_stated_size_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch):
    bomb = npz(a=np.zeros(10**6))
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(BundleError, match=r"file\.npz: unpacks to 8000\d+ bytes in 1 arrays, more than 10000 bytes"):
        read(bomb)


def test_more_members_than_any_bundle_has_are_refused():
    with pytest.raises(BundleError, match=rf"unpacks to 0 bytes in {MAX_ARRAYS + 1} arrays"):
        read(zipped(**{f"a{k}": b"" for k in range(MAX_ARRAYS + 1)}))


def lying(content: bytes, field: int, value: int) -> bytes:
    """Change a two-byte field of the first entry of the directory at the end of a zip archive, and of its member."""
    spoiled = bytearray(content)
    directory = content.index(b"PK\x01\x02")
    spoiled[directory + field : directory + field + 2] = struct.pack("<H", value)
    spoiled[field - 2 : field] = struct.pack("<H", value)
    return bytes(spoiled)


@pytest.mark.parametrize(("field", "value"), [(8, 1), (10, 99), (10, 12), (10, 14)])
def test_encrypted_or_otherwise_packed_members_are_refused(field: int, value: int):
    with pytest.raises(BundleError, match="not a readable"):
        read(lying(npz(a=np.arange(50)), field, value))


@settings(max_examples=400)
@given(st.data())
def test_any_damage_is_the_same_array_or_one_error(data: st.DataObject):
    content = bytearray(npz(data.draw(st.booleans()), **MEMBERS))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 1]))
    try:
        found = read(bytes(content[:cut]))
    except BundleError as error:
        assert "\n" not in str(error).strip()
    else:
        for name, values in found.items():
            assert name not in MEMBERS or values.nbytes <= MEMBERS[name].nbytes + 200


# -- the sample of a bundle --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "spoiled"))


def with_arrays(folder: Path, name: str, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Edit the arrays of a file of the bundle and give it its right hash."""
    with np.load(folder / name) as archive:
        arrays = dict(archive)
    edit(arrays)
    replace_file(folder, name, npz(**arrays))


def test_a_sample_without_the_output_of_a_task_is_refused(folder: Path):
    with_arrays(folder, "sample.npz", lambda arrays: arrays.pop("readout_cell_type_embedding.onnx"))
    with pytest.raises(BundleError, match=r"sample\.npz: readout_cell_type_embedding\.onnx missing; export the bundle"):
        check_bundle(load_bundle(folder))


def test_a_sample_that_is_no_archive_of_arrays_or_a_bomb_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = load_bundle(folder)
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BundleError, match=r"sample\.npz: unpacks to \d+ bytes"):
        check_bundle(bundle)
    monkeypatch.undo()
    replace_file(folder, "sample.npz", b"no archive")
    with pytest.raises(BundleError, match=r"sample\.npz: not a readable"):
        check_bundle(load_bundle(folder))


GRAPH = "readout_brain_region_embedding.onnx"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("counts", lambda a: a[:, :-1]),
        ("counts", lambda a: a[0]),
        ("counts", lambda a: a.astype(np.float64)),
        ("counts", lambda a: a[:0]),
        ("mask", lambda a: a[:-1]),
        ("mask", lambda a: a[0]),
        ("mask", lambda a: a.astype(np.uint8)),
        ("mask", lambda a: ~a),
        ("embedding", lambda a: a[:-1]),
        ("embedding", lambda a: a[:, :-1]),
        ("features_embedding", lambda a: a[:, :-1]),
        ("features_embedding", lambda a: a[:-1]),
        ("features_embedding", lambda a: a[None]),
        (GRAPH, lambda a: a[:, :-1]),
        (GRAPH, lambda a: a[:, 0]),
        (GRAPH, lambda a: a + 1),
        ("embedding", lambda a: a * np.float32(np.nan)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_sample_that_does_not_fit_the_manifest_is_refused(
    folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]
):
    with_arrays(folder, "sample.npz", lambda arrays: arrays.update({name: change(arrays[name])}))
    with pytest.raises(BundleError, match=r"sample\.npz: "):
        check_bundle(load_bundle(folder))


def test_a_sample_in_which_no_unit_is_active_or_another_is_named_is_refused(folder: Path):
    def nobody(arrays: dict[str, np.ndarray]) -> None:
        arrays.update(counts=np.zeros_like(arrays["counts"]), mask=np.zeros_like(arrays["mask"]))
        arrays["embedding"] = arrays["embedding"][:0]

    def another(arrays: dict[str, np.ndarray]) -> None:
        arrays["mask"] = arrays["mask"][::-1].copy()

    with_arrays(folder, "sample.npz", another)
    with pytest.raises(BundleError, match=r"sample\.npz: mask does not name the active units"):
        check_bundle(load_bundle(folder))
    with_arrays(folder, "sample.npz", nobody)
    with pytest.raises(BundleError, match=r"sample\.npz: embedding is float32 \(0, 16\)"):
        check_bundle(load_bundle(folder))


# -- what is known of the units of training ----------------------------------------------------------------------------


@pytest.fixture
def with_pools(pooled_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with an out-of-distribution score that a test may spoil."""
    return Path(shutil.copytree(pooled_bundle, tmp_path / "spoiled"))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"embedding.whiten": np.eye(15)}, "centres"),
        ({"embedding.whiten": np.ones((16, 16, 1))}, ""),
        ({"short_intervals": np.array(np.nan)}, "NaN"),
        ({"short_intervals": np.array([0.5])}, "short_intervals"),
        ({"statistics.limits": np.array([-1.0])}, "limits be positive"),
        ({"rate_hz": np.array([1.0])}, "rate_hz"),
        ({"rate_hz": np.array([[1.0, 2.0], [3.0, 4.0]])}, "rate_hz"),
        (
            {"embedding.whiten": np.eye(15), "embedding.centres": np.zeros((1, 15))},
            "embedding has 15 features, the bundle's has 16",
        ),
    ],
)
def test_a_broken_out_of_distribution_score_is_refused_before_anything_runs(
    with_pools: Path, edit: dict[str, np.ndarray], says: str
):
    with_arrays(with_pools, "out_of_distribution.npz", lambda arrays: arrays.update(edit))
    with pytest.raises(BundleError, match=rf"out_of_distribution\.npz: .*{says}.*export the bundle again"):
        Model(load_bundle(with_pools), provider="cpu", threads=1)


def test_an_out_of_distribution_score_that_is_no_archive_is_refused(with_pools: Path):
    replace_file(with_pools, "out_of_distribution.npz", b"PK but not really")
    with pytest.raises(BundleError, match=r"out_of_distribution\.npz: not a readable \.npz"):
        Model(load_bundle(with_pools), provider="cpu", threads=1)
