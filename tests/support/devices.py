"""Two devices on a machine that has none: `part:0` and `part:1`, of PyTorch's spare device type.

Tensors there are real to PyTorch (`tensor.device`, `.to`, factories, autograd) and hold their
values in the memory of the CPU, where every operation is computed. As on real devices, an operation
whose tensors lie on different ones is a RuntimeError, except copies; numbers in tensors without
axes, and indices, may lie on the CPU. So code that runs here mixes no devices, and its results are
exact; what memory or time two devices take is not shown.
"""

import torch
from torch.utils import backend_registration as registration
from torch.utils._pytree import tree_map, tree_map_only

KIND = "part"
COUNT = 2
COPIES = {torch.ops.aten.copy_, torch.ops.aten._to_copy}
INDEXED = {
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten._unsafe_index,
    torch.ops.aten._index_put_impl_,
}


class _Module(registration._DummyBackendModule):
    def device_count(self) -> int:
        return COUNT

    def get_rng_state(self, device=None) -> torch.Tensor:
        return torch.get_rng_state()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def set_rng_state(self, state: torch.Tensor, device=None) -> None:
        pass


class Part(torch.Tensor):
    """A tensor on one of the devices; `inner` holds its values."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device):
        """Wrap a CPU tensor."""
        # A view of a tensor made outside of inference mode must be able to count versions.
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                inner.stride(),
                inner.storage_offset(),
                dtype=inner.dtype,
                device=device,
            )
        made.inner = inner
        return made

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return where the values lie, for those who ask whether two tensors share it."""
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        """Return where the values lie."""
        return self.inner.data_ptr()

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            made = Part(self.inner.clone(), self.device).requires_grad_(self.requires_grad)
            made.__dict__.update({k: v for k, v in self.__dict__.items() if k != "inner"})
            memo[id(self)] = made
        return memo[id(self)]

    def __reduce_ex__(self, _protocol):
        return Part, (self.inner, self.device)

    def tolist(self) -> list:
        """Return the values; PyTorch refuses this for subclasses."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        """Compute on the CPU after the devices have been compared."""
        # In inference mode operations that are made of others arrive whole.
        if function._can_decompose():
            return function.decompose(*args, **(kwargs or {}))
        return _compute(function, *args, **(kwargs or {}))


def _compute(function, *args, **kwargs):
    tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if _is_tensor(t)]
    packet = function.overloadpacket
    checked = tensors[:1] if packet in INDEXED else tensors
    found = {t.device for t in checked if t.dim() or isinstance(t, Part)}
    if len(found) > 1 and packet not in COPIES:
        raise RuntimeError(f"{function}: tensors on {sorted(map(str, found))}")
    if packet in INDEXED:
        wrong = {t.device for t in tensors[1:] if isinstance(t, Part)} - found
        if wrong:
            raise RuntimeError(f"{function}: indices on {wrong}, the tensor on {found}")
    device = kwargs.get("device")
    if device is None:
        device = args[0].device if packet in COPIES else next(iter(found), torch.device(KIND, 0))
    elif device.type == KIND:
        device = torch.device(KIND, device.index or 0)
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    if "pin_memory" in kwargs:
        kwargs["pin_memory"] = False
    inner = tree_map_only(Part, lambda t: t.inner, (args, kwargs))
    result = function(*inner[0], **inner[1])
    if packet in COPIES and packet is not torch.ops.aten.copy_ and _same(result, inner[0][0]):
        result = result.clone()
    given = {id(t.inner): t for t in tensors if isinstance(t, Part)}

    def wrapped(value):
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in given:
            return given[id(value)]
        return Part(value, device) if device.type == KIND else value

    return tree_map(wrapped, result)


def _is_tensor(value) -> bool:
    return isinstance(value, torch.Tensor)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.data_ptr() == other.data_ptr()


def _empty_strided(
    size, stride, dtype=None, layout=None, device=None, pin_memory=None
) -> torch.Tensor:
    device = torch.device(KIND, device.index or 0)
    return Part(torch.empty_strided(size, stride, dtype=dtype), device)


def _empty(
    size, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None
) -> torch.Tensor:
    return Part(torch.empty(size, dtype=dtype), torch.device(KIND, device.index or 0))


def _arange(*bounds, dtype=None, layout=None, device=None, pin_memory=None) -> torch.Tensor:
    # Its own kernel makes an empty tensor and lets it grow, which a wrapper cannot follow.
    return Part(torch.arange(*bounds, dtype=dtype), torch.device(KIND, device.index or 0))


def _copy_from(source, target, non_blocking=False) -> torch.Tensor:
    inner = source.inner if isinstance(source, Part) else source
    (target.inner if isinstance(target, Part) else target).copy_(inner)
    return target


_library = None


def register() -> None:
    """Make the device type known to this process, for good.

    Backward passes run in the thread that asks for them: PyTorch has none for the second device.
    """
    global _library
    if _library is not None:
        return
    torch.utils.rename_privateuse1_backend(KIND)
    torch._register_device_module(KIND, _Module())
    torch._C._acc.register_python_privateuseone_hook(registration._DummyPrivateUse1Hook())
    torch._C._acc.register_python_privateuseone_device_guard(registration._DummyDeviceGuard())
    torch.autograd.set_multithreading_enabled(False)
    _library = torch.library.Library("aten", "IMPL")
    _library.impl("empty_strided", _empty_strided, "PrivateUse1")
    _library.impl("empty.memory_format", _empty, "PrivateUse1")
    for name in ("arange", "arange.start", "arange.start_step"):
        _library.impl(name, _arange, "PrivateUse1")
    _library.impl("_copy_from", _copy_from, "PrivateUse1")
