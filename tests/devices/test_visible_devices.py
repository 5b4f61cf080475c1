"""`CUDA_VISIBLE_DEVICES` without CUDA: what the driver does or, where nobody says, PyTorch's parser returned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from director._devices.inventory import Gpu, Inventory, LostGpu, MigSlice
from director._devices.visible_devices import visible_units
from director.errors import DiscoveryError

UUIDS = [
    f"GPU-{group}-0000-0000-0000-{number:012}"
    for number, group in enumerate(("aaaa1111", "aabb2222", "cccc3333", "dddd4444"))
]
GPUS = tuple(Gpu(n, uuid, "NVIDIA H100", f"00000000:{n:02x}:00.0", 80 * 2**30) for n, uuid in enumerate(UUIDS))
FOUR = Inventory(GPUS, driver="580.95.05")

ROWS: list[tuple[str | None, list[int]]] = [
    (None, [0, 1, 2, 3]),
    ("", []),
    # integers, read as strtoul reads them
    ("0", [0]),
    ("00", [0]),
    ("0\n", [0]),
    ("+1", [1]),
    ("2,1", [2, 1]),
    (" 0 , 1", [0, 1]),
    ("1gpu2,2ampere", [1, 2]),
    ("2,+3,-0,1", [2, 3, 0, 1]),
    ("0-2", [0]),
    ("0x1", [0]),
    ("1.5", [1]),
    ("0 1", [0]),
    # the first entry that means nothing ends the list
    ("0,2,-1,1", [0, 2]),
    ("-1", []),
    ("1,5,0", [1]),
    ("9", []),
    ("one,2", []),
    ("3,two,1", [3]),
    ("NoDevFiles", []),
    ("all", []),
    ("void", []),
    ("-", []),
    ("0,", [0]),
    (",0", []),
    # an entry that is there twice empties it
    ("0,0", []),
    ("0,1,2,1", []),
    ("0,1,-1,0", [0, 1]),
    ("1,9,1", []),
    # UUIDs, whole or by a unique beginning
    (UUIDS[2], [2]),
    ("GPU-cccc", [2]),
    ("GPU-dddd,GPU-aaaa", [3, 0]),
    ("GPU-aa", []),
    ("GPU-", []),
    ("GPU-cccc,GPU-aa,GPU-dddd", [2]),
    ("GPU-cccc,GPU-zzz,GPU-dddd", [2]),
    ("GPU-cccc,GPU-dddd,GPU-ccc", []),
    ("GPU-cccc,GPU-cccc", []),
    # the first entry fixes the kind of the list
    ("GPU-cccc,1", [2]),
    ("1,GPU-cccc", [1]),
    ("GPU-cccc, GPU-dddd", [2]),
    (" GPU-cccc", []),
    ("gpu-cccc", []),
    ("GPU-CCCC", []),
    ("cccc3333", []),
    ("MIG-cccc", []),
]


@pytest.mark.parametrize(("mask", "expected"), ROWS)
def test_four_equal_gpus(mask: str | None, expected: list[int]) -> None:
    assert visible_units(FOUR, mask, None) == tuple(GPUS[n] for n in expected)


def test_in_a_container_the_mask_of_the_host_means_nothing() -> None:
    two = Inventory(GPUS[:2])
    assert visible_units(two, None, None) == GPUS[:2]
    assert visible_units(two, "2,3", None) == ()


def test_a_gpu_without_permission_is_not_counted() -> None:
    three = Inventory((GPUS[0], GPUS[1], GPUS[3]), hidden=(2,))
    assert visible_units(three, None, None) == (GPUS[0], GPUS[1], GPUS[3])
    assert visible_units(three, "2", None) == (GPUS[3],)


def test_ordinals_follow_the_bus_and_not_nvml() -> None:
    swapped = (replace(GPUS[0], pci_bus_id="00000000:81:00.0"), replace(GPUS[1], pci_bus_id="00000000:18:00.0"))
    assert visible_units(Inventory(swapped), None, None) == (swapped[1], swapped[0])


class TestUnlikeGpus:
    """Where CUDA puts the fastest first, only CUDA knows the ordinals."""

    t4 = replace(GPUS[0], name="Tesla T4")
    mixed = Inventory((t4, GPUS[1]))

    @pytest.mark.parametrize("order", [None, "FASTEST_FIRST", "pci_bus_id"])
    @pytest.mark.parametrize("mask", [None, "0", "1,0"])
    def test_no_guess(self, mask: str | None, order: str | None) -> None:
        with pytest.raises(DiscoveryError, match=r"differ .*Tesla T4.*Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name"):
            visible_units(self.mixed, mask, order)

    @pytest.mark.parametrize(("mask", "expected"), [(None, [0, 1]), ("1,0", [1, 0]), ("0", [0])])
    def test_on_the_bus_they_are_clear(self, mask: str | None, expected: list[int]) -> None:
        assert visible_units(self.mixed, mask, "PCI_BUS_ID") == tuple(self.mixed.gpus[n] for n in expected)

    @pytest.mark.parametrize("mask", ["", "-1", "0,0", "7", "NoDevFiles"])
    def test_none_is_clear(self, mask: str) -> None:
        assert visible_units(self.mixed, mask, None) == ()

    def test_uuids_are_clear(self) -> None:
        assert visible_units(self.mixed, "GPU-aabb,GPU-aaaa", None) == (GPUS[1], self.t4)


class TestLostGpu:
    """Whether CUDA counts it is not documented."""

    maimed = Inventory((GPUS[1], GPUS[2]), lost=(LostGpu(0, 15, "GPU is lost"),))

    @pytest.mark.parametrize("mask", [None, "0", "1"])
    def test_ordinals_are_unclear(self, mask: str | None) -> None:
        with pytest.raises(DiscoveryError, match="GPU 0 is lost"):
            visible_units(self.maimed, mask, "PCI_BUS_ID")

    def test_uuids_are_clear(self) -> None:
        assert visible_units(self.maimed, "GPU-cccc,GPU-aabb", None) == (GPUS[2], GPUS[1])

    def test_a_uuid_that_may_be_the_lost_one_is_not(self) -> None:
        with pytest.raises(DiscoveryError, match="GPU-aaaa may be GPU 0"):
            visible_units(self.maimed, "GPU-aaaa,GPU-cccc", None)


class TestMig:
    """GPU 0 is cut into slices, GPU 1 is whole."""

    first, second, twin = (
        MigSlice(f"MIG-{digit * 8}-0000-0000-0000-000000000000", UUIDS[0], "H100 MIG 1g.10gb", 10 * 2**30, gi, ci)
        for digit, gi, ci in (("1", 1, 0), ("2", 2, 0), ("3", 2, 1))
    )
    cut = replace(GPUS[0], mig=True, slices=(first, second, twin))
    old = Inventory((cut, GPUS[1]), driver="550.54.15")
    new = Inventory((cut, GPUS[1]), driver="570.86.10")

    def test_one_slice_by_uuid(self) -> None:
        for inventory in (self.old, self.new, replace(self.new, driver=None)):
            assert visible_units(inventory, self.second.uuid, None) == (self.second,)
            assert visible_units(inventory, "MIG-2222", None) == (self.second,)

    def test_several_slices_depend_on_the_driver(self) -> None:
        assert visible_units(self.old, "MIG-1111,MIG-2222", None) == (self.first,)
        assert visible_units(self.new, "MIG-2222,MIG-1111", None) == (self.second, self.first)
        with pytest.raises(DiscoveryError, match="driver's version"):
            visible_units(replace(self.new, driver=None), "MIG-1111,MIG-2222", None)

    def test_two_slices_of_one_gpu_instance_are_unclear(self) -> None:
        with pytest.raises(DiscoveryError, match="one compute instance"):
            visible_units(self.new, "MIG-2222,MIG-3333", None)

    def test_the_older_form_of_name(self) -> None:
        assert visible_units(self.new, f"MIG-{UUIDS[0]}/2/1", None) == (self.twin,)

    @pytest.mark.parametrize(
        "mask", ["MIG-9999", "MIG-", f"MIG-{UUIDS[0]}/7/0", "MIG-1111,MIG-1111", "MIG-1111,MIG-11"]
    )
    def test_names_that_mean_nothing(self, mask: str) -> None:
        assert visible_units(self.new, mask, None) == ()

    def test_before_driver_570_one_slice_is_all_there_is(self) -> None:
        assert visible_units(self.old, None, None) == (self.first,)
        assert visible_units(self.old, "0", None) == (self.first,)
        assert visible_units(self.old, "1", None) == (GPUS[1],)

    @pytest.mark.parametrize(("inventory", "mask"), [(new, None), (new, "0"), (new, "1"), (old, "0,1"), (old, "1,0")])
    def test_other_ordinals_are_unclear(self, inventory: Inventory, mask: str | None) -> None:
        with pytest.raises(DiscoveryError, match="MIG mode"):
            visible_units(inventory, mask, None)

    def test_the_whole_gpu_by_uuid_is_unclear(self) -> None:
        with pytest.raises(DiscoveryError, match="is in MIG mode"):
            visible_units(self.new, UUIDS[0], None)

    def test_a_gpu_without_slices_is_unclear(self) -> None:
        with pytest.raises(DiscoveryError, match="MIG mode"):
            visible_units(Inventory((replace(self.cut, slices=()),), driver="550.54.15"), "0", None)
