"""What a process of a plugin finds around it: the interpreter, the system's libraries and devices, and little else."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.machinery import all_suffixes
from pathlib import Path

_SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt/rocm", "/opt/nvidia", "/opt/intel", "/opt/amdgpu"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/mime.types", "/etc/fonts", "/etc/OpenCL"),
    *(
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/version",
        "/proc/filesystems",
        "/proc/sys",
        "/proc/driver",
    ),
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/class", "/sys/module", "/sys/bus/pci"),
    *("/dev/urandom", "/dev/random"),
)
_NETWORK = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/run/systemd",
)
"""Beside these, what resolving names and trusting servers takes."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/dri", "/dev/kfd")
_DEVICE_PATTERNS = ("nvidia*",)

_PASSED = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)
_PASSED_BEGINNINGS = (
    *("LC_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "CUDA_", "CUBLAS_", "NVIDIA_", "NCCL_", "ROCR_", "HIP_"),
    *("TORCH_", "PYTORCH_", "TRANSFORMERS_", "HF_HUB_", "HF_DATASETS_", "DIFFUSERS_"),
)
_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "HF_TOKEN", "HF_ENDPOINT")
"""Passed on where the network is."""

_FIXED = {
    "PYTHONHASHSEED": "0",  # the order of a set is the same in every process
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "" if site.ENABLE_USER_SITE else "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Training frees and takes the same pages all the time: the allocator need not hand them back in between.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


def hub_cache() -> Path:
    """Where the hub's files are kept, as the environment says."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser().absolute()
    return hub_home() / "hub"


def hub_home() -> Path:
    """The hub's folder, as the environment says."""
    if named := os.environ.get("HF_HOME"):
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "huggingface"


def downloads() -> list[Path]:
    """Folders of the hub that what has a network may write to, which are made; none of them can be exchanged for a
    link, since the folder that they are in cannot be written to."""
    found = [hub_cache(), *(hub_home() / name for name in ("datasets", "modules", "xet", "assets"))]
    for folder in found:
        with suppress(OSError):  # what is not there cannot be granted
            folder.mkdir(parents=True, exist_ok=True)
    return found


def environment() -> dict[str, str]:
    """The variables that a server is started with; nothing that names a store, a suite or a secret."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name in _PASSED or name.startswith(_PASSED_BEGINNINGS)) and not any(s in name.upper() for s in _SECRETS)
    }
    own = {name: value for name, value in _FIXED.items() if value}
    hub = {
        "HF_HOME": str(hub_home()),
        "HF_HUB_CACHE": str(hub_cache()),
    }  # the hub's client reads them when it is loaded
    return {**kept, **own, **hub}


def for_network() -> dict[str, str]:
    """Variables that a process with a network is given beside."""
    return {name: os.environ[name] for name in _PROXIES if name in os.environ}


def private(home: Path) -> dict[str, str]:
    """Variables that lead into a process's own folder."""
    own = str(home)
    return {
        **{"HOME": own, "TMPDIR": own, "XDG_CACHE_HOME": str(home / "cache")},
        **{"PYTHONPATH": os.pathsep.join(sys.path)},
    }


def readable(network: bool) -> Iterator[Path]:
    """What every process may read and execute: the interpreter and the packages it finds, system libraries, what the
    system says of its processors and devices."""
    yield from map(Path, (*_SYSTEM, *(_NETWORK if network else ())))
    yield from Path("/sys/devices").glob("pci*")
    homes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sysconfig.get_paths().values()}
    yield from {Path(home).resolve() for home in homes}
    yield from (Path(sys.executable).parent, Path(sys.executable).resolve().parent)
    yield from (Path(e) for e in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if Path(e).is_absolute())
    yield from _importable()
    for entry in listed():
        yield from (found for found in entry.iterdir() if _is_code(found))


def exposed(folder: Path) -> Path | None:
    """The part of what every process may read that a folder lies in, None where it lies in none."""
    return next((r for r in map(Path.resolve, readable(network=False)) if folder.resolve().is_relative_to(r)), None)


def devices() -> Iterator[Path]:
    """Devices that every process may use."""
    yield from map(Path, _DEVICES)
    for pattern in _DEVICE_PATTERNS:
        yield from Path("/dev").glob(pattern)


def has_accelerator() -> bool:
    """Whether there is a device of NVIDIA's or AMD's."""
    return Path("/dev/kfd").exists() or any(Path("/dev").glob("nvidia[0-9]*"))


def listed() -> list[Path]:
    """Folders that the interpreter looks for packages in, of which only the packages can be read."""
    inside = {Path(home).resolve() for home in (sys.prefix, sys.base_prefix)}
    found = [Path(entry or ".").absolute() for entry in sys.path]
    return [e for e in dict.fromkeys(found) if e.is_dir() and not any(e.resolve().is_relative_to(p) for p in inside)]


def _importable() -> Iterator[Path]:
    """Zip files on the interpreter's path, and what is installed in place, which has finders of its own."""
    yield from (path for entry in sys.path if entry and (path := Path(entry).absolute()).is_file())
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):
            places = (Path(place) for key, place in getattr(module, "MAPPING", {}).items() if key != _BOARDS)
            for place in places:  # of a package; of a single module it is the name without the suffix
                yield from (place, *(place.with_name(f"{place.name}{suffix}") for suffix in all_suffixes()))


def _is_code(path: Path) -> bool:
    """Whether something in a folder of the interpreter's path is code, libraries that came in a wheel among it, or says
    what is installed there."""
    if path.suffix in (".py", ".pyc", ".so", ".libs", ".pth", ".dist-info", ".egg-info") or path.name == "__pycache__":
        return True
    return path.name != _BOARDS and path.is_dir() and (path / "__init__.py").is_file()


_BOARDS = "leaderboards"
"""Suites and records of ours, which no plugin reads."""


def named(values: Mapping[str, object]) -> Iterator[Path]:
    """Files and folders that settings name, at any depth; relative names as they are."""
    waiting: list[object] = list(values.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value:
            path = Path(value)
            try:
                if path.exists():
                    yield path
            except (OSError, ValueError):
                continue
