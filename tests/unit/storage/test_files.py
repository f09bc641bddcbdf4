"""Models and adapters as files: every bit comes back, and damage is noticed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save

from fused_ray.core.adapter import Mask, Masks
from fused_ray.core.lora import Lora
from fused_ray.core.state import state_hash
from fused_ray.errors import RunDirectoryError
from fused_ray.storage.files import encode_adapter, encode_state, read_adapter, read_state, read_tensors

STATE = {
    "conv.weight": np.array([[[[1.5, -0.0], [1e-45, 1e30]]]], np.float32),
    "norm.num_batches_tracked": np.array([2**40], np.int64),
}
MASKS = Masks((Mask("conv", 6, np.array([0, 3, 5])), Mask("fc", 4, np.array([2]))))
VALUES = np.array([0.5, -0.0, 1e-45, -1e30], np.float32)
LORA = Lora(("conv", "fc"), ((2, 1, 3, 1), (4, 2)), 2, 0.1)
FACTORS = np.arange(LORA.size, dtype=np.float32) / 3 - 1


def written(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    return path


def body(content):
    """Where the tensors' bytes begin, after the header and its length."""
    return 8 + int.from_bytes(content[:8], "little")


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_model_comes_back_bit_for_bit(tmp_path):
    found = read_state(written(tmp_path, encode_state(STATE)))
    assert found.keys() == STATE.keys()
    for name, array in STATE.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_a_model_in_another_memory_layout_gives_the_same_file():
    turned = {name: np.asfortranarray(array) for name, array in STATE.items()}
    assert encode_state(turned) == encode_state(STATE)


def test_any_flipped_byte_of_a_model_is_noticed(tmp_path):
    content = encode_state(STATE)
    for at in range(body(content), len(content)):
        with pytest.raises(RunDirectoryError, match="is damaged"):
            read_state(written(tmp_path, flipped(content, at)))


def test_a_model_from_elsewhere_needs_no_hash(tmp_path):
    assert read_state(written(tmp_path, save(STATE))).keys() == STATE.keys()


def test_an_adapter_comes_back_bit_for_bit(tmp_path):
    masks, values = read_adapter(written(tmp_path, encode_adapter(MASKS, VALUES, {"start": "zero"})))
    assert masks.digest == MASKS.digest
    assert [(m.layer, m.entries, m.positions.tolist()) for m in masks.layers] == [
        (m.layer, m.entries, m.positions.tolist()) for m in MASKS.layers
    ]
    assert [mask.positions.dtype for mask in masks.layers] == [np.int64] * 2
    assert (values.dtype, values.tobytes()) == (np.float32, VALUES.tobytes())


def test_a_low_rank_adapter_comes_back_bit_for_bit(tmp_path):
    adapter, values = read_adapter(written(tmp_path, encode_adapter(LORA, FACTORS, {"start": "zero"})))
    assert adapter == LORA
    assert adapter.digest == LORA.digest
    assert (values.dtype, values.tobytes()) == (np.float32, FACTORS.tobytes())


def adapter_bytes(of):
    """The adapter's file, and where in it the tensor's bytes are."""
    content = encode_adapter(MASKS, VALUES, {})
    raw = {"values": VALUES, "positions": MASKS.layers[0].positions}[of].tobytes()
    start = content.index(raw, body(content))
    return content, range(start, start + len(raw))


def test_any_flipped_byte_of_an_adapters_positions_is_noticed(tmp_path):
    content, places = adapter_bytes("positions")
    for at in places:
        with pytest.raises(RunDirectoryError, match="is damaged"):
            read_adapter(written(tmp_path, flipped(content, at)))


def test_any_flipped_byte_of_an_adapters_values_is_noticed(tmp_path):
    content, places = adapter_bytes("values")
    for at in places:
        with pytest.raises(RunDirectoryError, match="is damaged"):
            read_adapter(written(tmp_path, flipped(content, at)))


def test_any_flipped_byte_of_a_low_rank_adapters_values_is_noticed(tmp_path):
    content = encode_adapter(LORA, FACTORS, {})
    assert len(content) - body(content) == FACTORS.nbytes
    for at in range(body(content), len(content)):
        with pytest.raises(RunDirectoryError, match="is damaged"):
            read_adapter(written(tmp_path, flipped(content, at)))


@pytest.mark.parametrize(("adapter", "values"), [(MASKS, VALUES), (LORA, FACTORS)], ids=["masks", "lora"])
def test_a_flipped_byte_of_an_adapters_header_is_noticed_or_changes_nothing(tmp_path, adapter, values):
    content = encode_adapter(adapter, values, {})
    noticed = 0
    for at in range(body(content)):
        try:
            found, read = read_adapter(written(tmp_path, flipped(content, at)))
        except RunDirectoryError:
            noticed += 1
        else:
            assert (found.digest, read.tobytes()) == (adapter.digest, values.tobytes())
    assert noticed > 0.8 * body(content)


def lora_file(values=FACTORS, **changes):
    """A low-rank adapter's file that was written by somebody else, with digests that agree."""
    about = dataclasses.asdict(LORA) | changes
    told = Lora(tuple(about["names"]), tuple(map(tuple, about["shapes"])), about["rank"], about["alpha"])
    header = {"lora": json.dumps(about), "digest": told.digest, "sha256": state_hash({"values": values})}
    return save({"values": values}, metadata=header)


@pytest.mark.parametrize(
    "content",
    [
        save({"values": VALUES}),
        save({"values": VALUES}, metadata={"masks": "[", "digest": MASKS.digest}),
        save({"values": VALUES}, metadata={"masks": "[]", "digest": MASKS.digest}),
        save({"values": VALUES}, metadata={"masks": "[1]", "digest": MASKS.digest}),
        save({"values": VALUES}, metadata={"masks": '[{"layer": "fc", "entries": 4}]', "digest": MASKS.digest}),
        encode_adapter(MASKS, VALUES[:3], {}),
        save({"values": FACTORS}, metadata={"lora": "[", "digest": LORA.digest}),
        save({"values": FACTORS}, metadata={"lora": "[]", "digest": LORA.digest}),
        save({"values": FACTORS}, metadata={"lora": "null", "digest": LORA.digest}),
        save({"values": FACTORS}, metadata={"lora": '{"names": ["fc"]}', "digest": LORA.digest}),
        encode_adapter(LORA, FACTORS[:-1], {}),
        lora_file(rank=1),
        lora_file(shapes=[[], []]),
        lora_file(shapes=[["a"], ["b"]]),
        encode_state(STATE),
    ],
)
def test_a_file_that_holds_no_adapter_is_refused(tmp_path, content):
    with pytest.raises(RunDirectoryError, match="it does not hold the adapter that was saved"):
        read_adapter(written(tmp_path, content))


@pytest.mark.parametrize("read", [read_tensors, read_state, read_adapter])
@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 1000, encode_state(STATE)[:-1], encode_state(STATE)[:20]])
def test_a_file_that_is_no_safetensors_file_is_refused_in_one_line(tmp_path, read, content):
    with pytest.raises(RunDirectoryError, match="is not a readable safetensors file") as caught:
        read(written(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_tensors, read_state, read_adapter])
def test_a_missing_file_and_a_folder_are_refused(tmp_path, read):
    with pytest.raises(RunDirectoryError, match="there is no file"):
        read(tmp_path / "absent.safetensors")
    with pytest.raises(RunDirectoryError, match="is not a readable safetensors file"):
        read(tmp_path)
