"""What a machine can do, from its data sheet."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Machine:
    """One kind of device and how many of them; rates are per device and those really reached.

    ``flops`` are matrix products in float32, ``flops_bf16`` in bfloat16, ``bandwidth`` bytes per
    second from memory, ``memory`` bytes, ``layer_seconds`` what calling one layer costs where
    there is nearly nothing to compute, ``link`` bytes per second between devices.
    """

    name: str
    flops: float
    flops_bf16: float
    bandwidth: float
    memory: float
    layer_seconds: float
    link: float = 0.0
    devices: int = 1
    gpu: bool = True

    def times(self, devices: int) -> Machine:
        """As many of these devices, the questions of a step shared among them."""
        if devices < 1 or (devices > 1 and self.link <= 0):
            raise ValueError(
                f"{devices} devices of {self.name!r}: there must be at least 1, and more than 1 "
                "need a link (bytes a second between them)."
            )
        return replace(self, devices=devices)


def data_sheet(
    name: str,
    flops: float,
    flops_bf16: float,
    bandwidth: float,
    memory: float,
    link: float,
    *,
    reached: float = 0.4,
    reached_bandwidth: float = 0.7,
    layer_seconds: float = 4e-4,
) -> Machine:
    """A machine from its data sheet's peaks (dense) and the share of them that is reached.

    The shares and the seconds per layer (some twenty kernels started from Python) are assumptions.
    """
    rates = (reached * flops, reached * flops_bf16, reached_bandwidth * bandwidth)
    return Machine(name, *rates, memory, layer_seconds, reached_bandwidth * link)


# Peaks from NVIDIA's data sheets: float32 without TF32 (torch's default), bfloat16 dense, one way
# of NVLink (H100, A100) or PCIe 4.0 ×16 (4090). Not measured here.
MACHINES = {
    name: data_sheet(name, *peaks)
    for name, *peaks in (
        ("H100", 67e12, 989e12, 3.35e12, 80e9, 450e9),
        ("A100", 19.5e12, 312e12, 2.04e12, 80e9, 300e9),
        ("RTX 4090", 82.6e12, 165e12, 1.01e12, 24e9, 32e9),
    )
}
